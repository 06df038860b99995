/** How much of the context a message will take, counted by the server before it is sent. */

import { debounced, make } from "../dom.js";
import { ask } from "../server.js";
import { count, say } from "../words.js";

export class Meter {
  constructor() {
    this.bar = make("meter", { min: "0", max: "1", value: "0", "aria-label": say("meter") });
    this.words = make("small");
    this.element = make("div", { class: "meter", hidden: true }, this.bar, this.words);
    this.update = debounced((body) => this.#count(body), 400);
    this.control = null;
  }

  async #count(body) {
    this.control?.abort();
    this.control = new AbortController();
    const asked = body();
    if (!asked) return void (this.element.hidden = true);
    try {
      const { tokens, context_length: most, truncated_tokens: lost } = await ask("/api/render", asked, this.control);
      if (tokens == null) return void (this.element.hidden = true);
      this.#show(tokens, most, lost);
    } catch (error) {
      if (error.name !== "AbortError") this.element.hidden = true;
    }
  }

  #show(tokens, most, lost) {
    const values = { tokens: count(tokens), most: count(most), lost: count(lost) };
    this.bar.value = Math.min(1, tokens / most);
    this.bar.high = 0.85;
    this.words.textContent = say(lost ? "meter.lost" : "meter.tokens", values);
    this.element.classList.toggle("error", lost > 0);
    this.element.hidden = false;
  }
}
