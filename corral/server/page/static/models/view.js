/** The view of models: those that are installed, those that are being fetched, and where others come from. */

import { button, confirmed, form, make, notify, submitter } from "../dom.js";
import { ask } from "../server.js";
import { bytes, count, place, say } from "../words.js";
import * as create from "./create.js";
import { details } from "./details.js";
import { downloads } from "./downloads.js";
import { importer } from "./file.js";
import * as pulls from "./pulls.js";
import { search } from "./search.js";

export async function show(place) {
  const cards = make("div", { class: "cards" });
  const left = new AbortController();
  const { signal } = left;
  const redraw = () => draw(cards);
  pulls.changes.addEventListener("done", redraw, { signal });
  place.append(
    make("section", { class: "panel" }, make("h2", {}, say("models.pull")), pullForm(), downloads(signal), importer(redraw, signal)),
    make("section", { class: "panel" }, make("h2", {}, say("models.installed")), cards),
    make("section", { class: "panel" }, make("h2", {}, say("models.search")), ...search(pulls.start)),
  );
  await redraw();
  return () => left.abort();
}

function pullForm() {
  const input = make("input", { "aria-label": say("models.name"), placeholder: "llama3.2", required: true, spellcheck: "false" });
  const insecure = make("input", { type: "checkbox" });
  const submit = () => {
    pulls.start(input.value.trim(), insecure.checked);
    input.value = "";
  };
  return form(submit, { class: "row" }, input, submitter(say("models.pull.do")), make("label", { class: "check" }, insecure, say("models.insecure")));
}

async function draw(cards) {
  try {
    const { models } = await ask("/api/tags");
    const redraw = () => draw(cards);
    cards.replaceChildren(...(models.length ? models.map((model) => card(model, redraw)) : [make("p", {}, say("models.none"))]));
  } catch (error) {
    cards.replaceChildren(make("p", { class: "error" }, error.message || say("unreachable")));
  }
}

/** A model; one of another server, at `remote_host`, has no files here that could be copied or deleted. */
function card({ name, size, details: kind, capabilities = [], remote_host: host, spills_to: others = [] }, redraw) {
  const facts = [kind.parameter_size, kind.quantization_level, !host && bytes(size)].filter(Boolean).join(" · ");
  const context = kind.context_length ? say("models.context.of", { tokens: count(kind.context_length) }) : "";
  const about = [facts, context].filter(Boolean).join(" · ");
  const again = (work) => async () => (await work(name)) && redraw();
  const changes = () => [
    button(say("models.derive"), again(create.derive)),
    button(say("models.copy"), again(create.copy)),
    button(say("models.delete"), again(remove), { class: "danger" }),
  ];
  return make(
    "article",
    { class: "card", "aria-label": name },
    make("h3", {}, name),
    about && make("small", {}, about),
    host && make("small", {}, say("models.elsewhere", { host: place(host) })),
    others.length > 0 && make("small", {}, say("models.spills", { places: others.map(place).join(", ") })),
    make("div", { class: "tags" }, capabilities.map((one) => make("span", { class: "tag" }, say(`capability.${one}`)))),
    make("div", { class: "row" }, button(say("models.details"), () => details(name)), host ? [] : changes()),
  );
}

async function remove(name) {
  if (!(await confirmed(say("models.delete.sure", { name }), say("models.delete"), say("cancel")))) return false;
  try {
    await ask("/api/delete", { model: name }, { method: "DELETE" });
    return true;
  } catch (error) {
    notify(error.message, "error");
    return false;
  }
}
