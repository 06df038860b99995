/** Markdown of an answer that grows: rendered by the server, block by block, and cleaned there. */

import { make } from "../dom.js";
import { icon } from "../icons.js";
import { ask } from "../server.js";
import { say } from "../words.js";

/** Milliseconds between two renderings of a text that grows. */
const EVERY = 250;
/** Characters that are sent at once; the server takes a few more. */
const LONGEST = 30000;
/** Characters of a table from which its rows are kept as they are, and only those that follow are rendered. */
const LONG_TABLE = 4000;
/** Of the time, one part in so many is spent on rendering at most, and no wait is longer than so many milliseconds. */
const SHARE = 4;
const LONGEST_WAIT = 4000;

export class Markdown {
  constructor() {
    this.element = make("div", { class: "text" });
    this.text = "";
    this.previewed = null;
    this.done = 0; // characters in blocks that no more text can change
    this.open = []; // elements after those
    this.head = ""; // the first lines of a long table whose rows were shown up to `done`, to be sent before those that follow
    this.rows = null; // where its rows are
    this.busy = false;
    this.timer = null;
    this.next = 0; // when a text that grows may be rendered again
  }

  /** Shows a text as it was written, until it is to be rendered. */
  preview(text) {
    if (text !== this.previewed) this.#plain((this.previewed = text));
  }

  /** Shows a text that begins as the last one did. */
  show(text) {
    if (text === this.text) return;
    this.text = text;
    if (!this.busy && !this.timer) this.#later(this.next - performance.now());
  }

  #later(wait) {
    if (wait <= 0) this.#render();
    else this.timer = setTimeout(() => ((this.timer = null), this.#render()), wait);
  }

  async #render() {
    this.busy = true;
    const begun = performance.now();
    const rest = this.text.slice(this.done, this.done + LONGEST - this.head.length);
    const seen = this.done + rest.length;
    const isAll = seen === this.text.length;
    try {
      const { blocks } = rest.trim() ? await ask("/api/markdown", { text: this.head + rest }) : { blocks: [] };
      this.#put(this.head + rest, blocks, isAll);
    } catch {
      this.#plain(rest); // the words matter more than their form
    }
    this.busy = false;
    this.next = begun + Math.max(EVERY, Math.min(SHARE * (performance.now() - begun), LONGEST_WAIT));
    this.element.dispatchEvent(new CustomEvent("grown", { bubbles: true }));
    if (seen === this.text.length) return;
    this.#later(isAll ? this.next - performance.now() : 0);
  }

  /** Shows the blocks of what was sent. The last one stays open, unless it alone is longer than what can be sent. */
  #put(sent, blocks, isAll) {
    const parts = blocks.map(({ html }) => [block(html)]);
    for (const element of this.open) element.remove();
    this.open = parts.at(-1) ?? [];
    if (!parts.length) return;
    if (this.head) this.rows.append(...(parts[0] = [...parts[0][0].querySelectorAll("tbody tr")]));
    this.element.append(...parts.slice(this.head ? 1 : 0).flat());
    this.open = parts.at(-1);
    const offset = offsetOfLine(sent, blocks.at(-1).line);
    this.done += Math.max(0, offset - this.head.length);
    if (parts.length > 1) this.head = "";
    if (this.#keepRows(sent.slice(offset)) || parts.length > 1 || isAll) return;
    this.done += sent.length - Math.max(offset, this.head.length);
    this.open = [];
    this.head = "";
  }

  /** Keeps the rows of a long table that is open, up to its last line. Whether there is one. */
  #keepRows(source) {
    const head = this.head || (/^.*\n.*\n/.exec(source)?.[0] ?? "");
    const end = source.lastIndexOf("\n") + 1;
    const table = this.head ? this.rows : this.open[0].querySelector(":scope > .wide:only-child > table > tbody");
    if (!table || source.length < LONG_TABLE || 2 * head.length > LONG_TABLE || /\n\s*\n$/.test(source.slice(0, end))) return false;
    const isWhole = end === source.length;
    this.done += end - this.head.length;
    this.open = isWhole ? [] : [table.lastElementChild];
    this.head = head;
    this.rows = table;
    return true;
  }

  #plain(sent) {
    for (const element of this.open) element.remove();
    this.open = [make("p", { class: "plain-text" }, sent)];
    this.element.append(...this.open);
  }
}

/** The one place where HTML is taken as HTML: the server made and cleaned it. */
function block(html) {
  const element = make("div", { class: "block" });
  element.innerHTML = html;
  for (const code of element.querySelectorAll("pre")) addCopy(code);
  for (const link of element.querySelectorAll("a")) link.target = "_blank";
  for (const task of element.querySelectorAll("li > input")) task.setAttribute("aria-label", task.parentElement.textContent.trim());
  for (const table of element.querySelectorAll("table")) {
    const frame = make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": say("table") });
    table.replaceWith(frame);
    frame.append(table);
  }
  return element;
}

function addCopy(code) {
  const language = /language-([\w+#-]+)/.exec(code.firstElementChild?.className ?? "")?.[1] ?? "";
  const copy = make("button", { type: "button", class: "plain", onclick: () => copied(code.textContent, copy) }, say("copy"));
  const frame = make("div", { class: "code" }, make("div", { class: "code-head" }, make("span", {}, language), copy));
  code.tabIndex = 0;
  code.replaceWith(frame);
  frame.append(code);
}

export async function copied(text, pressed) {
  await copy(text);
  const before = [...pressed.childNodes];
  pressed.replaceChildren(pressed.hasAttribute("aria-label") ? icon("done") : say("copied"));
  setTimeout(() => pressed.replaceChildren(...before), 1500);
}

/** The clipboard of browsers is for pages of this machine or by HTTPS; the old way works elsewhere, too. */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = make("textarea", {}, text);
  (document.querySelector("dialog[open]") ?? document.body).append(area); // outside of a dialog nothing can be selected
  area.select();
  document.execCommand("copy");
  area.remove();
}

function offsetOfLine(text, line) {
  let offset = 0;
  for (let number = 0; number < line; number++) offset = text.indexOf("\n", offset) + 1;
  return offset;
}
