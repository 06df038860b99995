/** Elements of the page: making them, and telling the user something. Text goes in as text, never as HTML. */

import { icon as drawn } from "./icons.js";
import { say } from "./words.js";

/** Characters that show text in another order than it has: a name could look like another one, or turn the words around it. */
const REORDERING = /[\u202a-\u202e\u2066-\u2069]/g;

/** A text in which such characters are seen, as the server does it in what a model wrote. */
export function revealed(text) {
  return text.replace(REORDERING, (found) => `⟦U+${found.charCodeAt(0).toString(16).toUpperCase()}⟧`);
}

/**
 * An element with attributes and children; texts among these are `revealed`. An attribute whose name begins with `on` is a listener, one whose value is
 * `true` is there without a value, and one whose value is `false`, `null` or `undefined` is not there.
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  const shown = children.flat().filter((child) => child != null && child !== false);
  element.append(...shown.map((child) => (typeof child === "string" ? revealed(child) : child)));
  return element;
}

/** A button that says what it does in words, or in an icon of that name with a label for those who do not see it. */
export function button(label, listener, { icon = "", ...attributes } = {}) {
  const named = icon ? { "aria-label": label, title: label } : {};
  return make("button", { type: "button", onclick: listener, ...named, ...attributes }, icon ? drawn(icon) : label);
}

/** A labelled field: the label above, the control below. */
export function field(label, control, hint = "") {
  return make("label", { class: "field" }, make("span", {}, label), control, hint && make("small", {}, hint));
}

/** A form whose `submit` is called when it is sent. The page stays as it is. */
export function form(submit, attributes = {}, ...children) {
  return make("form", { onsubmit: (event) => (event.preventDefault(), submit()), ...attributes }, ...children);
}

/** The button that sends the form around it. */
export function submitter(label, attributes = { class: "main" }) {
  return make("button", { type: "submit", ...attributes }, label);
}

/** The last line of a dialog, with its buttons. */
export function buttons(...shown) {
  return make("div", { class: "row end" }, ...shown);
}

/** A list of facts, given as `[name, value]`. */
export function facts(rows) {
  return make("dl", { class: "facts" }, rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

/** A select with choices `[value, text]`. */
export function select(choices, chosen, listener, attributes = {}) {
  const element = make("select", { onchange: () => listener(element.value), ...attributes });
  fill(element, choices, chosen);
  return element;
}

export function fill(element, choices, chosen) {
  element.replaceChildren(...choices.map(([value, text]) => make("option", { value, dir: "auto", selected: value === chosen }, text)));
}

/** Takes files that are dropped anywhere in the window, until `signal` is aborted. Dropped text goes where it always goes. */
export function takeDrops(take, signal) {
  const files = (listener) => (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    listener(event.dataTransfer);
  };
  addEventListener("dragover", files((data) => (data.dropEffect = "copy")), { signal });
  addEventListener("drop", files((data) => take([...data.files])), { signal });
}

/** Shows a sentence at the foot of the window for some seconds, read out by screen readers. One that is shown is not shown twice. */
export function notify(sentence, kind = "note") {
  let shelf = document.getElementById("notices");
  if (!shelf) document.body.append((shelf = make("div", { id: "notices", role: "status", "aria-live": "polite" })));
  if ([...shelf.children].some((shown) => shown.firstChild.data === revealed(sentence))) return;
  const notice = make("p", { class: `notice ${kind}` }, sentence);
  notice.append(button(say("close"), () => notice.remove(), { icon: "close", class: "plain" }));
  shelf.append(notice);
  setTimeout(() => notice.remove(), kind === "error" ? 15000 : 6000);
}

/** Opens a dialog with a heading and resolves to what `close(value)` was given; `undefined` when it was dismissed. */
export function dialog(title, build, attributes = {}) {
  return new Promise((resolve) => {
    let result;
    const close = (value) => {
      result = value;
      box.close();
    };
    const heading = make("h2", { id: "dialog-title", dir: "auto" }, title);
    const box = make("dialog", { "aria-labelledby": "dialog-title", ...attributes }, heading, ...build(close));
    box.addEventListener("close", () => {
      box.remove();
      resolve(result);
    });
    box.addEventListener("click", (event) => event.target === box && box.close());
    document.body.append(box);
    box.showModal();
  });
}

/** Asks before something that cannot be undone. */
export function confirmed(question, yes, no) {
  return dialog(question, (close) => [
    buttons(button(no, () => close(false)), button(yes, () => close(true), { class: "danger", autofocus: true })),
  ]);
}

/** An id that no other has. `crypto.randomUUID` is missing where a page does not come from this machine or by HTTPS. */
export function newId() {
  const digits = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0"));
  return digits.join("");
}

/** Calls `listener` when `delay` milliseconds have passed without another call. */
export function debounced(listener, delay) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => listener(...given), delay);
  };
}
