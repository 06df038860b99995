/** The pulls as they are shown, each with what can be done with it. */

import { button, make } from "../dom.js";
import { bytes, duration, say } from "../words.js";
import * as pulls from "./pulls.js";

/** A list of all pulls that keeps up with them until `signal` is aborted. */
export function downloads(signal) {
  const element = make("div", { "aria-live": "off" });
  const shown = new Map();
  const redraw = () => {
    for (const [name, download] of shown) {
      if (pulls.pulls.has(name)) continue;
      download.element.remove();
      shown.delete(name);
    }
    for (const name of pulls.pulls.keys()) {
      if (!shown.has(name)) element.append(added(shown, name).element);
      shown.get(name).update();
    }
  };
  pulls.changes.addEventListener("change", redraw, { signal });
  pulls.changes.addEventListener("done", redraw, { signal });
  redraw();
  return element;
}

function added(shown, name) {
  const download = new Download(name);
  shown.set(name, download);
  return download;
}

/** One pull. Its buttons stay the same elements while it moves, so that one can press them and the focus stays on them. */
class Download {
  constructor(name) {
    this.name = name;
    this.act = button("", () => this.#act());
    this.forget = button(say("models.forget"), () => pulls.forget(name), { icon: "close", class: "plain" });
    this.bar = make("progress", { max: "1", "aria-label": name });
    this.words = make("small");
    const row = make("div", { class: "row" }, make("b", {}, name), make("span", { class: "space" }), this.act, this.forget);
    this.element = make("div", { class: "download" }, row, this.bar, this.words);
  }

  get #pull() {
    return pulls.pulls.get(this.name);
  }

  #act() {
    if (this.#pull.state === "running") pulls.pause(this.name);
    else pulls.start(this.name, this.#pull.insecure);
  }

  update() {
    const pull = this.#pull;
    const isRunning = pull.state === "running";
    const progress = pull.moved;
    const label = say(isRunning ? "models.pause" : "models.resume");
    if (this.act.textContent !== label) this.act.textContent = label;
    this.forget.hidden = isRunning;
    this.bar.hidden = !isRunning;
    if (progress.total) this.bar.value = progress.completed / progress.total;
    else this.bar.removeAttribute("value");
    this.words.className = pull.state === "failed" ? "error" : "";
    this.words.textContent = isRunning ? moved(pull.status, progress) : pull.state === "failed" ? pull.error : say("models.paused");
  }
}

function moved(status, { completed, total, rate, left }) {
  const parts = [
    status,
    total ? `${bytes(completed)} / ${bytes(total)}` : "",
    rate > 0 ? `${bytes(rate)}/s` : "",
    left ? say("wait.left", { time: duration(left) }) : "",
  ];
  return parts.filter(Boolean).join(" · ");
}
