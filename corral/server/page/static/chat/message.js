/** One message as it is shown: its text, what the model thought, its figures, and what can be done with it. */

import { button, make, revealed } from "../dom.js";
import { icon } from "../icons.js";
import * as words from "../words.js";
import { isRunning, progress } from "./answers.js";
import { copied, Markdown } from "./markdown.js";
import { tokens } from "./tokens.js";
import { waiting } from "./waiting.js";

const { say } = words;
/** Milliseconds in which an answer under way is looked at once, whatever comes of it meanwhile. */
const EVERY = 100;

/** Tells elements that they have come near the window: only then is their Markdown rendered. */
const nearWindow = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) target.dispatchEvent(new Event("near"));
  },
  { rootMargin: "1500px" },
);

/**
 * The element of a message. `actions` has what its buttons do: `edit`, `again`, `walk(sibling)`, `remove`, `goOn(text)`;
 * `beside` are the messages that stand at the same place.
 */
export function show(message, beside, actions) {
  const isAnswer = message.role === "assistant";
  const element = make("article", { class: `message ${message.role}`, "data-id": message.id, "aria-label": who(message) });
  element.append(make("header", {}, make("b", { dir: "auto" }, who(message)), branches(message, beside, actions)));
  if (isAnswer) element.append(...answerParts(message, element, actions));
  else element.append(attachments(message), make("div", { class: "asked", dir: "auto" }, message.content));
  element.append(foot(message, actions));
  return element;
}

function who({ role, model }) {
  return role === "user" ? say("chat.you") : model || say("chat.model");
}

function branches(message, beside, { walk }) {
  if (beside.length < 2) return "";
  const place = beside.findIndex(({ id }) => id === message.id);
  const step = (by, icon, label) =>
    button(label, () => walk(beside[place + by]), { icon, class: "plain", disabled: !beside[place + by] });
  return make(
    "span",
    { class: "branches" },
    step(-1, "left", say("chat.earlier")),
    `${place + 1} / ${beside.length}`,
    step(1, "right", say("chat.later")),
  );
}

function attachments({ images = [], files = [] }) {
  if (!images.length && !files.length) return "";
  return make(
    "div",
    { class: "attachments" },
    images.map((address) => make("img", { src: address, alt: say("chat.picture") })),
    files.map(({ name, text }) => make("span", { class: "file", title: text.slice(0, 500) }, icon("file"), make("bdi", {}, name))),
  );
}

function answerParts(message, element, actions) {
  const thought = make("details", { class: "thinking", hidden: true });
  const thoughtText = make("div", { class: "thought", dir: "auto" });
  thought.append(make("summary", {}, say("chat.thought")), thoughtText);
  const state = make("div", { class: "state", hidden: true });
  const rendered = new Markdown();
  rendered.element.dir = "auto";
  const calls = make("div", { class: "calls" });
  let isNear = false;

  let ran = null;

  const update = () => {
    const runs = isRunning(message.id);
    thought.hidden = !message.thinking;
    const thinking = revealed(message.thinking ?? "");
    if (thoughtText.textContent !== thinking) thoughtText.textContent = thinking;
    waiting(state, message, runs);
    if (isNear) rendered.show(message.content);
    else rendered.preview(message.content);
    if (calls.childElementCount !== (message.calls ?? []).length) calls.replaceChildren(...message.calls.map(call));
    if (runs === ran) return;
    ran = runs;
    element.setAttribute("aria-busy", runs);
    element.querySelector(":scope > footer")?.replaceWith(foot(message, actions));
  };
  element.addEventListener("near", () => {
    isNear = true;
    nearWindow.unobserve(element);
    update();
  });
  nearWindow.observe(element);
  if (message.state === "running") listenUntilDone(message, element, update);
  update();
  return [thought, rendered.element, calls, state];
}

function listenUntilDone(message, element, update) {
  let isPlanned = false;
  const listener = () => {
    if (message.state !== "running" && !isRunning(message.id)) progress.removeEventListener(message.id, listener);
    if (isPlanned) return;
    isPlanned = true;
    setTimeout(() => {
      isPlanned = false;
      update();
      element.dispatchEvent(new CustomEvent("grown", { bubbles: true }));
    }, EVERY);
  };
  progress.addEventListener(message.id, listener);
}

function call({ function: { name, arguments: given } }) {
  return make(
    "details",
    { class: "call" },
    make("summary", {}, icon("tool"), make("bdi", {}, name)),
    make("pre", { tabindex: "0" }, JSON.stringify(given, null, 2)),
  );
}

function foot(message, { edit, again, remove, goOn }) {
  const isAnswer = message.role === "assistant";
  const copy = button(say("copy"), () => copied(message.content, copy), { icon: "copy", class: "plain" });
  return make(
    "footer",
    { hidden: isRunning(message.id) },
    copy,
    isAnswer
      ? button(say("chat.again"), again, { icon: "again", class: "plain" })
      : button(say("chat.edit"), edit, { icon: "pencil", class: "plain" }),
    message.tokens?.length ? button(say("chat.tokens"), () => tokens(message, goOn), { icon: "tokens", class: "plain" }) : "",
    button(say("chat.remove"), remove, { icon: "trash", class: "plain" }),
    figures(message.stats),
  );
}

function figures(stats) {
  if (!stats) return "";
  const parts = [say("stats.speed", { rate: words.decimal(stats.rate) }), say("stats.written", { count: words.count(stats.written) })];
  const shown = { count: words.count(stats.prompt), cached: words.count(stats.cached) };
  parts.push(say(stats.cached ? "stats.prompt.cached" : "stats.prompt", shown), words.duration(stats.seconds));
  if (stats.reason === "length") parts.push(say("stats.length"));
  return make("small", { class: "figures" }, parts.join(" · "));
}
