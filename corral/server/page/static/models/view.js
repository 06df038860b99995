/** The view of models: those that are installed, those that are being fetched, and where others come from. */

import { button, confirmed, make, notify } from "../dom.js";
import { ask } from "../server.js";
import { bytes, count, duration, say } from "../words.js";
import * as create from "./create.js";
import { details } from "./details.js";
import { importer } from "./file.js";
import * as pulls from "./pulls.js";
import { search } from "./search.js";

export async function show(place) {
  const cards = make("div", { class: "cards" });
  const downloads = make("div", { "aria-live": "off" });
  const redraw = () => draw(cards);
  const redrawPulls = () => downloads.replaceChildren(...[...pulls.pulls.values()].map(download));
  const finished = () => (redrawPulls(), redraw());
  pulls.changes.addEventListener("change", redrawPulls);
  pulls.changes.addEventListener("done", finished);
  place.append(
    make("section", { class: "panel" }, make("h2", {}, say("models.pull")), pullForm(), downloads, importer(redraw)),
    make("section", { class: "panel" }, make("h2", {}, say("models.installed")), cards),
    make("section", { class: "panel" }, make("h2", {}, say("models.search")), ...search(pulls.start)),
  );
  redrawPulls();
  await redraw();
  return () => {
    pulls.changes.removeEventListener("change", redrawPulls);
    pulls.changes.removeEventListener("done", finished);
  };
}

function pullForm() {
  const input = make("input", { "aria-label": say("models.name"), placeholder: "llama3.2", required: true, spellcheck: "false" });
  const insecure = make("input", { type: "checkbox" });
  const submit = (event) => {
    event.preventDefault();
    pulls.start(input.value.trim(), insecure.checked);
    input.value = "";
  };
  return make("form", { class: "row", onsubmit: submit }, input, make("button", { type: "submit", class: "main" }, say("models.pull.do")), make("label", { class: "check" }, insecure, say("models.insecure")));
}

function download(pull) {
  const { completed, total, rate, left } = pulls.progress(pull);
  const isRunning = pull.state === "running";
  const shown = [pull.status, total ? `${bytes(completed)} / ${bytes(total)}` : "", rate > 0 ? `${bytes(rate)}/s` : "", left ? say("wait.left", { time: duration(left) }) : ""];
  const sentence = isRunning ? shown.filter(Boolean).join(" · ") : pull.state === "failed" ? pull.error : say("models.paused");
  return make(
    "div",
    { class: "download" },
    make(
      "div",
      { class: "row" },
      make("b", {}, pull.name),
      make("span", { class: "space" }),
      isRunning ? button(say("models.pause"), () => pulls.pause(pull.name)) : button(say("models.resume"), () => pulls.start(pull.name, pull.insecure)),
      isRunning ? "" : button(say("models.forget"), () => pulls.forget(pull.name), { icon: "close", class: "plain" }),
    ),
    isRunning ? make("progress", { max: "1", "aria-label": pull.name, ...(total ? { value: completed / total } : {}) }) : "",
    make("small", { class: pull.state === "failed" ? "error" : "" }, sentence),
  );
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

function card({ name, size, details: kind, capabilities = [] }, redraw) {
  const facts = [kind.parameter_size, kind.quantization_level, bytes(size)].filter(Boolean).join(" · ");
  const context = kind.context_length ? say("models.context.of", { tokens: count(kind.context_length) }) : "";
  const again = (work) => async () => (await work(name)) && redraw();
  return make(
    "article",
    { class: "card", "aria-label": name },
    make("h3", {}, name),
    make("small", {}, [facts, context].filter(Boolean).join(" · ")),
    make("div", { class: "tags" }, capabilities.map((one) => make("span", { class: "tag" }, say(`capability.${one}`)))),
    make(
      "div",
      { class: "row" },
      button(say("models.details"), () => details(name)),
      button(say("models.derive"), again(create.derive)),
      button(say("models.copy"), again(create.copy)),
      button(say("models.delete"), again(remove), { class: "danger" }),
    ),
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
