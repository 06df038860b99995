/** The last lines of the server's log, which it shows on its own machine only. */

import { make } from "../dom.js";
import { ask } from "../server.js";
import { say } from "../words.js";

export class Log {
  constructor() {
    this.text = make("pre", { class: "source", tabindex: "0", role: "region", "aria-label": say("server.log") });
    this.element = make("details", { ontoggle: () => this.look() }, make("summary", {}, say("server.log.show")), this.text);
  }

  /** Reads the lines anew while they are shown. Who has scrolled up stays there. */
  async look() {
    if (!this.element.open) return;
    const { scrollTop, clientHeight, scrollHeight } = this.text;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < 20;
    try {
      this.text.textContent = (await ask("/api/log")).lines.join("\n");
    } catch (error) {
      this.text.textContent = error.message;
    }
    if (isAtEnd) this.text.scrollTop = this.text.scrollHeight;
  }
}
