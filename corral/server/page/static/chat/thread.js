/** The messages of a conversation, of which the last ones are shown first and the others added above in between. */

import { make } from "../dom.js";
import * as message from "./message.js";
import * as tree from "./tree.js";

const AT_ONCE = 40;

export class Thread {
  /** `actions(message)` gives what the buttons of a message do. */
  constructor(actions) {
    this.actions = actions;
    this.element = make("div", { class: "thread", role: "log", "aria-live": "off" });
    this.isAtEnd = true;
    this.element.addEventListener("scroll", () => {
      const { scrollTop, clientHeight, scrollHeight } = this.element;
      this.isAtEnd = scrollHeight - scrollTop - clientHeight < 60;
    });
    this.element.addEventListener("grown", () => this.#follow());
    this.sizes = new ResizeObserver(() => this.#follow()); // a message has its true height only once it was in the window
    this.round = 0;
  }

  /** Shows a conversation's path, to its end. Messages that are shown already keep their elements, and who reads farther up the place. */
  show(conversation) {
    const round = ++this.round;
    const shown = new Map([...this.element.children].map((element) => [element.dataset.id, element]));
    const path = conversation.path;
    const elementOf = (one) => this.#kept(shown.get(one.id), one, conversation) ?? this.#made(one, conversation);
    const isAsBefore = shown.has(path.at(-1)?.id) && path.length === shown.size;
    const isNearlyShown = shown.has(path[0]?.id) && path.filter(({ id }) => !shown.has(id)).length <= AT_ONCE;
    const begin = isNearlyShown ? 0 : Math.max(0, path.length - AT_ONCE);
    const { scrollTop } = this.element;
    replace(this.element, path.slice(begin).map(elementOf));
    if (isAsBefore && !this.isAtEnd) this.element.scrollTop = scrollTop;
    else this.#toEnd();
    if (begin) this.#addAbove(path.slice(0, begin), elementOf, round);
  }

  #addAbove(rest, elementOf, round) {
    setTimeout(() => {
      if (round !== this.round) return;
      const from = this.element.scrollHeight - this.element.scrollTop;
      this.element.prepend(...rest.slice(-AT_ONCE).map(elementOf));
      this.element.scrollTop = this.element.scrollHeight - from;
      if (rest.length > AT_ONCE) this.#addAbove(rest.slice(0, -AT_ONCE), elementOf, round);
    });
  }

  #kept(element, one, conversation) {
    const beside = tree.siblings(conversation.messages, one).length;
    return element?.dataset.beside === String(beside) ? element : undefined;
  }

  /** The element of a message, or of all that answer side by side with it. */
  #made(one, conversation) {
    const beside = tree.siblings(conversation.messages, one);
    const together = one.group ? beside.filter(({ group }) => group === one.group) : [one];
    const shown = together.map((each) => message.show(each, beside, this.actions(each)));
    const element = shown.length > 1 ? make("div", { class: "pair", "data-id": one.id }, shown) : shown[0];
    element.dataset.beside = beside.length;
    this.sizes.observe(element);
    return element;
  }

  #follow() {
    if (this.isAtEnd) this.#toEnd();
  }

  #toEnd() {
    this.element.scrollTop = this.element.scrollHeight;
    this.isAtEnd = true;
  }
}

/** Makes these the children of an element. Those that are so already stay where they are, and need no new layout. */
function replace(parent, wanted) {
  const stay = new Set(wanted);
  for (const child of [...parent.children]) if (!stay.has(child)) child.remove();
  let next = parent.firstElementChild;
  for (const child of wanted) {
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
}
