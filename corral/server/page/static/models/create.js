/** New models of one that is there: a copy, or one with another system prompt and parameters. */

import { button, buttons, dialog, field, form, make, notify, submitter } from "../dom.js";
import { ask, lines } from "../server.js";
import { say } from "../words.js";

const PARAMETERS = ["temperature", "num_ctx", "top_p", "repeat_penalty", "seed"];

/** Asks for a name and copies; resolves to whether a model was made. */
export async function copy(name) {
  const input = make("input", { value: `${name.split(":")[0]}-copy`, required: true });
  const wanted = await dialog(say("models.copy.title", { name }), (close) => [asked([field(say("models.name"), input)], close, () => input.value.trim())]);
  return wanted ? done(ask("/api/copy", { source: name, destination: wanted }), wanted) : false;
}

/** Asks for a name, a system prompt and parameters, and makes the model; resolves to whether it was made. */
export async function derive(name) {
  const input = make("input", { value: `my-${name.split("/").at(-1).split(":")[0]}`, required: true });
  const system = make("textarea", { rows: "5" });
  const numbers = PARAMETERS.map((option) => [option, make("input", { type: "number", step: "any", placeholder: say("option.default") })]);
  const fields = [
    field(say("models.name"), input),
    field(say("settings.system"), system),
    make("div", { class: "grid" }, numbers.map(([option, number]) => field(option, number, say(`option.${option}`)))),
  ];
  const read = () => ({
    model: input.value.trim(),
    from: name,
    ...(system.value.trim() ? { system: system.value.trim() } : {}),
    parameters: Object.fromEntries(numbers.filter(([, number]) => number.value).map(([option, number]) => [option, number.valueAsNumber])),
  });
  const wanted = await dialog(say("models.derive.title", { name }), (close) => [asked(fields, close, read)], { class: "broad" });
  return wanted ? done(made(wanted), wanted.model) : false;
}

async function made(wanted) {
  for await (const [line] of lines("/api/create", wanted)) if (line.status === "success") return;
  throw new Error(say("chat.cut"));
}

/** A form that closes its dialog with what it reads. */
function asked(fields, close, read) {
  return form(() => close(read()), {}, fields, buttons(button(say("cancel"), () => close()), submitter(say("models.make"))));
}

async function done(work, name) {
  try {
    await work;
    notify(say("models.made", { name }));
    return true;
  } catch (error) {
    notify(error.message, "error");
    return false;
  }
}
