/** Markdown of an answer that grows: rendered by the server, block by block, and cleaned there. */

import { make } from "../dom.js";
import { icon } from "../icons.js";
import { ask } from "../server.js";
import { say } from "../words.js";

/** Milliseconds between two renderings of a text that grows. */
const EVERY = 250;
/** Characters that are sent at once; the server takes a few more. */
const LONGEST = 30000;
/** Characters of a table that are shown as one: browsers are slow with many cells. Its head stands again above the rest. */
const LONGEST_TABLE = 6000;
const IS_TABLE = /^.{0,1000}\n(?=.*\|)[ |:-]{1,1000}\n/;
/** Characters of the lines that are repeated where a table or code is longer than that. */
const LONGEST_HEAD = 5000;
/** A text that is slow to render is rendered so seldom that this takes no more than this share of the time. */
const SHARE = 0.25;

export class Markdown {
  constructor() {
    this.element = make("div", { class: "text" });
    this.text = "";
    this.previewed = null;
    this.done = 0; // characters in blocks that no more text can change
    this.head = ""; // first lines of a block that was cut after `done`, which have its rest rendered alike
    this.open = []; // elements of the blocks after those
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
    const began = performance.now();
    const part = this.#part();
    const sent = this.head + part;
    const seen = this.done + part.length;
    const isAll = seen === this.text.length;
    try {
      const { blocks } = sent.trim() ? await ask("/api/markdown", { text: sent }) : { blocks: [] };
      this.#put(sent, blocks, isAll);
    } catch {
      this.#plain(sent); // the words matter more than their form
    }
    this.busy = false;
    this.next = began + Math.max(EVERY, (performance.now() - began) / SHARE);
    this.element.dispatchEvent(new CustomEvent("grown", { bubbles: true }));
    if (seen === this.text.length) return;
    this.#later(isAll ? this.next - performance.now() : 0);
  }

  /** What is to be rendered now, and no more than can be sent: whole lines, where they are not very long. */
  #part() {
    const begin = this.head + this.text.slice(this.done, this.done + LONGEST);
    const most = IS_TABLE.test(begin) ? LONGEST_TABLE : LONGEST;
    const part = begin.slice(this.head.length, most);
    if (this.done + part.length === this.text.length) return part;
    const lines = part.slice(0, part.lastIndexOf("\n") + 1);
    return lines.length > part.length / 2 ? lines : part;
  }

  /** Shows the blocks of what was sent. The last one stays open, unless it alone is longer than what can be sent. */
  #put(sent, blocks, isAll) {
    const elements = blocks.map(({ html }) => block(html));
    const finished = blocks.length === 1 && !isAll ? 1 : Math.max(0, blocks.length - 1);
    for (const element of this.open) element.remove();
    this.element.append(...elements);
    this.open = elements.slice(finished);
    if (!finished) return;
    const isCut = finished === blocks.length;
    this.done += (isCut ? sent.length : offsetOfLine(sent, blocks[finished].line)) - this.head.length;
    this.head = isCut ? headOf(sent, elements[0]) : "";
  }

  /** In parts, since browsers take very long to break a very long line. */
  #plain(sent) {
    for (const element of this.open) element.remove();
    this.open = [];
    for (let begin = 0; begin < sent.length; begin += LONGEST) {
      this.open.push(make("p", { class: "plain-text" }, sent.slice(begin, begin + LONGEST)));
    }
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
  const area = make("textarea");
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area); // outside of a dialog nothing can be selected
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** The lines that begin a table or code, without which its rest would be rendered as something else. */
function headOf(text, element) {
  const lines = element.querySelector(":scope > .wide") ? /^.*\n.*\n/ : /^ {0,3}(```|~~~).*\n/;
  const head = lines.exec(text)?.[0] ?? "";
  return head.length > LONGEST_HEAD ? "" : head;
}

function offsetOfLine(text, line) {
  let offset = 0;
  for (let number = 0; number < line; number++) offset = text.indexOf("\n", offset) + 1;
  return offset;
}
