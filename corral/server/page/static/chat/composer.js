/** Where a message is written: text, files, send and stop. Enter sends, Shift and Enter begin a new line. */

import { button, form, make } from "../dom.js";
import { say } from "../words.js";
import { Attachments } from "./attachments.js";
import { Meter } from "./meter.js";

export class Composer {
  /** `send({content, images, files})`, `stop()`; `drafted(draft)` gives what is to be counted of a draft. */
  constructor({ send, stop, drafted }) {
    this.send = send;
    this.drafted = drafted;
    this.files = new Attachments(() => this.count());
    this.meter = new Meter();
    this.input = make("textarea", {
      rows: "1",
      "aria-label": say("chat.write"),
      placeholder: say("chat.write"),
      oninput: () => this.#typed(),
      onkeydown: (event) => this.#pressed(event),
      onpaste: (event) => this.#pasted(event),
    });
    const chooser = make("input", { type: "file", multiple: true, hidden: true, onchange: () => (this.files.take([...chooser.files]), (chooser.value = "")) });
    this.sendButton = button(say("chat.send"), () => this.submit(), { class: "main" });
    this.stopButton = button(say("chat.stop"), stop, { class: "main", hidden: true });
    this.element = form(
      () => this.submit(),
      { class: "composer" },
      this.files.element,
      this.input,
      make(
        "div",
        { class: "row" },
        button(say("file.add"), () => chooser.click(), { icon: "clip", class: "plain" }),
        chooser,
        this.meter.element,
        make("span", { class: "space" }),
        this.stopButton,
        this.sendButton,
      ),
    );
  }

  /** Whether an answer is under way: it can be stopped, and nothing can be sent. */
  set busy(isBusy) {
    const pressed = document.activeElement;
    this.sendButton.hidden = isBusy;
    this.stopButton.hidden = !isBusy;
    if (pressed === this.sendButton && isBusy) this.stopButton.focus();
    if (pressed === this.stopButton && !isBusy) this.focus();
  }

  /** Counts the draft anew, when something else than its text has changed. */
  count() {
    this.meter.update(() => this.drafted(this.#draft()));
  }

  focus() {
    this.input.focus();
  }

  /** Takes files that were dropped anywhere in the view. */
  take(files) {
    return this.files.take(files);
  }

  #draft() {
    return { content: this.input.value.trim(), images: this.files.images, files: this.files.files };
  }

  #typed() {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight + 2, innerHeight * 0.4)}px`;
    this.count();
  }

  #pressed(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.submit();
  }

  #pasted(event) {
    const files = [...event.clipboardData.files];
    if (!files.length) return;
    event.preventDefault();
    this.files.take(files);
  }

  /** Sends what is written, as Enter does. */
  submit() {
    const draft = this.#draft();
    if (this.sendButton.hidden || (!draft.content && !draft.images.length && !draft.files.length)) return;
    if (this.send(draft) === false) return;
    this.input.value = "";
    this.files.clear();
    this.#typed();
  }
}
