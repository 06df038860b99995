/** All about one model: its facts, parameters, template, licence. */

import { button, buttons, dialog, facts, make, notify } from "../dom.js";
import { ask } from "../server.js";
import { bytes, count, say } from "../words.js";

export async function details(name) {
  let shown;
  try {
    shown = await ask("/api/show", { model: name, requirements: true });
  } catch (error) {
    return notify(error.message, "error");
  }
  return dialog(
    name,
    (close) => [
      about(shown),
      ...source("models.system", shown.system),
      ...source("models.parameters", shown.parameters),
      ...source("models.template", shown.template),
      ...source("models.modelfile", shown.modelfile),
      ...source("models.license", shown.license),
      buttons(button(say("done"), () => close(), { class: "main" })),
    ],
    { class: "broad" },
  );
}

function about({ details: kind = {}, model_info: info = {}, capabilities = [], requirements, upstreams = [] }) {
  const architecture = info["general.architecture"] ?? kind.family;
  const rows = [
    ["models.upstreams", upstreams.length > 0 && make("div", {}, upstreams.map(upstream))],
    ["models.architecture", architecture !== "remote" && architecture],
    ["models.size.parameters", kind.parameter_size],
    ["models.quantization", kind.quantization_level],
    ["models.context", info[`${architecture}.context_length`]],
    ["models.memory", requirements && say("models.memory.of", { memory: bytes(requirements.total), tokens: count(requirements.context_length) })],
    ["models.capabilities", capabilities.map((one) => say(`capability.${one}`)).join(", ")],
  ];
  const text = (value) => (typeof value === "number" ? count(value) : value);
  return facts(rows.filter(([, value]) => value).map(([label, value]) => [say(label), text(value)]));
}

/** Another server that answers for the model, and what is wrong with it. */
function upstream({ url, model, error }) {
  return make("div", {}, `${url} (${model})`, error && make("div", { class: "error" }, error));
}

function source(label, text) {
  if (!text) return [];
  return [make("details", {}, make("summary", {}, say(label)), make("pre", { class: "source", tabindex: "0" }, text))];
}
