/** Files that are dropped, pasted or chosen for a message: pictures as they are, everything else as text. */

import { button, make, notify } from "../dom.js";
import { icon } from "../icons.js";
import { bytes, say } from "../words.js";

const MAX_TEXT = 2_000_000;
const MAX_PICTURE = 20_000_000;

export class Attachments {
  constructor(changed) {
    this.element = make("div", { class: "attachments", hidden: true });
    this.changed = changed;
    this.clear();
  }

  clear() {
    this.images = [];
    this.files = [];
    this.#draw();
  }

  /** Takes files; what cannot be taken is said. */
  async take(files) {
    for (const file of files) await this.#takeOne(file);
    this.#draw();
    this.changed();
  }

  async #takeOne(file) {
    const isPicture = file.type.startsWith("image/");
    const most = isPicture ? MAX_PICTURE : MAX_TEXT;
    if (file.size > most) return notify(say("file.large", { name: file.name, most: bytes(most) }), "error");
    if (isPicture) {
      this.images.push(await address(file));
      return;
    }
    const text = await file.text();
    if (text.includes("\u0000")) return notify(say("file.binary", { name: file.name }), "error");
    this.files.push({ name: file.name, text });
  }

  #draw() {
    const entry = (shown, list, place) =>
      make("span", { class: "file" }, shown, button(say("file.remove"), () => this.#drop(list, place), { icon: "close", class: "plain" }));
    const pictures = this.images.map((source, place) => entry(make("img", { src: source, alt: say("chat.picture") }), this.images, place));
    this.element.replaceChildren(...pictures, ...this.files.map(({ name }, place) => entry([icon("file"), make("bdi", {}, name)], this.files, place)));
    this.element.hidden = !this.element.children.length;
  }

  #drop(list, place) {
    list.splice(place, 1);
    this.#draw();
    this.changed();
  }
}

function address(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
