/** The models that are installed, with what each can do, for a choice. */

import { fill, make } from "../dom.js";
import { ask } from "../server.js";
import { say } from "../words.js";

const SHOWN = ["tools", "vision", "audio", "thinking"];
const LAST = "corral.model";

/** The models that can answer. */
export async function installed() {
  const { models } = await ask("/api/tags");
  return models.filter(({ capabilities = ["completion"] }) => capabilities.includes("completion"));
}

export class Picker {
  constructor(changed, label) {
    this.element = make("select", { "aria-label": label, onchange: () => this.#chose(changed) });
    this.models = [];
  }

  /** Offers models, and `none` where that is given. `wanted` is chosen if it is there, else what was chosen last. */
  offer(models, wanted, none = "") {
    this.models = models;
    const names = models.map(({ name }) => name);
    const chosen = [wanted, none ? "" : localStorage.getItem(LAST), ""].find((name) => name === "" || names.includes(name)) ?? "";
    const choices = this.models.map(({ name, capabilities = [] }) => [name, label(name, capabilities)]);
    fill(this.element, none ? [["", none], ...choices] : choices, chosen || (none ? "" : names[0]));
  }

  get model() {
    return this.element.value;
  }

  get capabilities() {
    return this.#chosen?.capabilities ?? [];
  }

  /** Addresses of other servers to which a message goes, or may go. */
  get places() {
    const { remote_host: host, spills_to: others = [] } = this.#chosen ?? {};
    return host ? [host] : others;
  }

  get #chosen() {
    return this.models.find(({ name }) => name === this.model);
  }

  #chose(changed) {
    if (this.model) localStorage.setItem(LAST, this.model);
    changed(this.model);
  }
}

function label(name, capabilities) {
  const said = SHOWN.filter((one) => capabilities.includes(one)).map((one) => say(`capability.${one}`));
  return said.length ? `${name} (${said.join(", ")})` : name;
}
