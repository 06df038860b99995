/** The view of the server: what is loaded and how busy it is, memory, the last requests. */

import { button, make, notify } from "../dom.js";
import { ask } from "../server.js";
import * as words from "../words.js";
import { Keys } from "./keys.js";
import { Log } from "./log.js";
import { Plot } from "./plot.js";
import { requests } from "./requests.js";

const { say } = words;
const EVERY = 1000;

export async function show(place) {
  const view = new View(place);
  await view.look();
  await view.keys.look().catch((error) => notify(error.message || say("unreachable"), "error"));
  const timer = setInterval(() => document.hidden || view.look(), EVERY);
  return () => clearInterval(timer);
}

class View {
  constructor(place) {
    this.facts = make("dl", { class: "facts" });
    this.models = make("div", { class: "cards" });
    this.requests = make("div");
    this.log = new Log();
    this.keys = new Keys();
    this.maySeeRequests = true;
    this.plots = new Map();
    this.version = null;
    place.append(
      panel("server.about", this.facts),
      panel("server.loaded", this.models),
      panel("requests", this.requests),
      this.keys.element,
      panel("server.log", this.log.element),
    );
  }

  async look() {
    try {
      this.version ??= (await ask("/api/version")).version;
      const [live, reports] = await Promise.all([ask("/api/ps?live=true"), this.#reports()]);
      this.#facts(live);
      this.#loaded(live.models);
      this.log.look();
      if (reports && !this.requests.contains(document.activeElement)) this.requests.replaceChildren(requests(reports));
    } catch (error) {
      this.facts.replaceChildren(make("dt", {}, say("server.state")), make("dd", { class: "error" }, error.message || say("unreachable")));
    }
  }

  /** The last requests; null where the key is not for seeing them, which is said. */
  async #reports() {
    if (!this.maySeeRequests) return null;
    try {
      return (await ask("/api/requests")).requests;
    } catch (error) {
      if (error.status !== 403) throw error;
      this.maySeeRequests = false;
      this.requests.replaceChildren(make("p", {}, error.message));
      return null;
    }
  }

  #facts({ waiting, memory }) {
    const { total, available, workers = 0 } = memory;
    const rows = [
      [say("server.version"), say("server.version.of", { version: this.version })],
      [say("server.memory"), say("server.memory.of", { free: words.bytes(available), total: words.bytes(total), models: words.bytes(workers) })],
      [say("server.waiting"), words.count(waiting)],
    ];
    this.facts.replaceChildren(...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  }

  #loaded(models) {
    for (const name of this.plots.keys()) if (!models.some((model) => model.name === name)) this.plots.delete(name);
    this.models.replaceChildren(...(models.length ? models.map((model) => this.#model(model)) : [make("p", {}, say("server.none.loaded"))]));
  }

  #model(model) {
    const { live = {} } = model;
    if (!this.plots.has(model.name)) this.plots.set(model.name, new Plot(say("server.rate")));
    const plot = this.plots.get(model.name);
    plot.add((live.generated_tokens_per_second ?? 0) + (live.prompt_tokens_per_second ?? 0));
    const rows = live.state === "loading" ? [[say("server.state"), say("wait.loading")]] : busy(model, live);
    return make(
      "article",
      { class: "card", "aria-label": model.name },
      make("h3", {}, model.name),
      make("dl", { class: "facts" }, rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
      plot.element,
      make("div", { class: "row" }, button(say("server.unload"), () => unload(model.name))),
    );
  }
}

function busy(model, { slots = {}, pool = {}, waiting = 0, served = 0, generated_tokens_per_second: written, prompt_tokens_per_second: read }) {
  return [
    [say("server.memory"), words.bytes(model.size)],
    [say("server.slots"), `${words.count(slots.busy ?? 0)} / ${words.count(slots.total ?? 0)}`],
    [say("server.pool"), `${words.count(pool.used ?? 0)} / ${words.count(pool.total ?? 0)}`],
    [say("server.rate"), say("server.rate.of", { written: words.decimal(written ?? 0), read: words.decimal(read ?? 0) })],
    [say("server.requests"), say("server.requests.of", { waiting: words.count(waiting), served: words.count(served) })],
    [say("server.expires"), until(model.expires_at)],
  ];
}

function until(moment) {
  const seconds = (new Date(moment) - Date.now()) / 1000;
  if (!(seconds < 3e8)) return say("server.forever");
  return seconds > 0 ? say("server.expires.in", { time: words.duration(seconds) }) : say("server.expires.now");
}

function panel(title, content) {
  return make("section", { class: "panel" }, make("h2", {}, say(title)), content);
}

async function unload(name) {
  try {
    await ask("/api/generate", { model: name, keep_alive: 0 });
  } catch (error) {
    notify(error.message, "error");
  }
}
