/** The view of the server: what is loaded and how busy it is, memory, the last requests. */

import { button, facts, make, notify } from "../dom.js";
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
    this.facts = make("div");
    this.models = make("div", { class: "cards" });
    this.requests = make("div");
    this.log = new Log();
    this.keys = new Keys();
    this.maySeeRequests = true;
    this.cards = new Map();
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
      this.facts.replaceChildren(facts([[say("server.state"), make("span", { class: "error" }, error.message || say("unreachable"))]]));
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

  #facts({ version, waiting, engine, memory, devices = [] }) {
    const { total, available, workers = 0 } = memory;
    const rows = [
      [say("server.version"), say("server.version.of", { own: version, version: this.version })],
      [say("server.engine"), engine.name === "wheel" ? `llama.cpp, xllamacpp ${engine.version}` : engine.name],
      [say("server.memory"), say("server.memory.of", { free: words.bytes(available), total: words.bytes(total), models: words.bytes(workers) })],
      ...devices.map(({ name, description, total, available, workers }) => [
        description || name,
        say("server.memory.of", { free: words.bytes(available), total: words.bytes(total), models: words.bytes(workers) }),
      ]),
      [say("server.waiting"), words.count(waiting)],
    ];
    this.facts.replaceChildren(facts(rows));
  }

  #loaded(models) {
    const shown = new Map(models.map((model) => [`${model.name} ${model.remote_host ?? ""}`, model]));
    const keys = [...shown.keys()];
    const isSame = keys.length === this.cards.size && keys.every((key) => this.cards.has(key));
    for (const key of this.cards.keys()) if (!shown.has(key)) this.cards.delete(key);
    for (const [key, model] of shown) {
      if (!this.cards.has(key)) this.cards.set(key, model.remote_host ? new RemoteCard(model.name) : new Card(model.name));
      this.cards.get(key).update(model);
    }
    if (isSame && keys.length) return;
    const elements = keys.map((key) => this.cards.get(key).element);
    this.models.replaceChildren(...(elements.length ? elements : [make("p", {}, say("server.none.loaded"))]));
  }
}

/** A loaded model. Its button stays the same element, so that one can press it and the focus stays on it. */
class Card {
  constructor(name) {
    this.plot = new Plot(say("server.rate"));
    this.facts = facts([]);
    const act = make("div", { class: "row" }, button(say("server.unload"), () => unload(name)));
    this.element = make("article", { class: "card", "aria-label": name }, make("h3", {}, name), this.facts, this.plot.element, act);
  }

  update(model) {
    const { live = {} } = model;
    this.plot.add((live.generated_tokens_per_second ?? 0) + (live.prompt_tokens_per_second ?? 0));
    const shown = facts(live.state === "loading" ? [[say("server.state"), say("wait.loading")]] : busy(model, live));
    this.facts.replaceWith(shown);
    this.facts = shown;
  }
}

/** A model of another server, which loads and unloads it as it likes. */
class RemoteCard {
  constructor(name) {
    this.facts = facts([]);
    this.element = make("article", { class: "card", "aria-label": name }, make("h3", {}, name), this.facts);
  }

  update({ remote_host: host, context_length: length }) {
    const rows = [[say("models.upstreams"), words.place(host)], ...(length ? [[say("models.context"), words.count(length)]] : [])];
    const shown = facts(rows);
    this.facts.replaceWith(shown);
    this.facts = shown;
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
