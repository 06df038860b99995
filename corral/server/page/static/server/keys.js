/** The keys of the server: listed, made and revoked. Only for those who may. */

import { copied } from "../chat/markdown.js";
import { button, buttons, confirmed, dialog, field, form, make, notify, select, submitter } from "../dom.js";
import { ask } from "../server.js";
import * as words from "../words.js";

const { say } = words;
const COLUMNS = ["name", "scope", "models", "requests", "tokens", "created"];
const SCOPES = ["infer", "manage", "admin"];

export class Keys {
  constructor() {
    this.list = make("div");
    this.note = make("p");
    this.element = make("section", { class: "panel", hidden: true }, make("h2", {}, say("keys")), this.note, this.list, button(say("keys.make"), () => this.#make()));
  }

  /** Shows the keys, or nothing to those who may not see them. */
  async look() {
    try {
      const [{ keys }, { needed, key }] = await Promise.all([ask("/api/keys"), ask("/api/key")]);
      this.note.textContent = say(needed ? "keys.needed" : "keys.not.needed");
      this.list.replaceChildren(keys.length ? this.#table(keys, key?.id) : make("p", {}, say("keys.none")));
      this.element.hidden = false;
    } catch (error) {
      if (error.status !== 403 && error.status !== 401) throw error;
      this.element.hidden = true;
    }
  }

  #table(keys, own) {
    const head = make("tr", {}, COLUMNS.map((name) => make("th", { scope: "col" }, say(`keys.${name}`))), make("th"));
    const rows = keys.map((key) => this.#row(key, key.id === own));
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": say("keys") }, make("table", {}, head, rows));
  }

  #row(key, isOwn) {
    const limit = (number) => make("td", { class: "number" }, number ? words.count(number) : "–");
    return make(
      "tr",
      { title: key.id },
      make("td", {}, isOwn ? say("keys.own", { name: key.name }) : key.name),
      make("td", {}, say(`keys.scope.${key.scope}`)),
      make("td", {}, key.models.join(", ") || say("keys.all")),
      limit(key.requests_per_minute),
      limit(key.tokens_per_minute),
      make("td", {}, words.date(key.created_at)),
      make("td", {}, button(say("keys.revoke"), () => this.#revoke(key), { "aria-label": say("keys.revoke.name", { name: key.name }) })),
    );
  }

  async #revoke({ id, name }) {
    if (!(await confirmed(say("keys.revoke.sure", { name }), say("keys.revoke"), say("cancel")))) return;
    await this.#do(() => ask("/api/keys", { key: id }, { method: "DELETE" }));
  }

  async #make() {
    const wanted = await wish();
    if (wanted) await this.#do(async () => shown(await ask("/api/keys", wanted)));
  }

  async #do(work) {
    try {
      await work();
      await this.look();
    } catch (error) {
      notify(error.message, "error");
    }
  }
}

/** Asks what the new key is to be. */
function wish() {
  const name = make("input", { required: true, maxlength: "64" });
  const models = make("input", { placeholder: "llama3.2, qwen*" });
  const [requests, tokens] = [0, 1].map(() => make("input", { type: "number", min: "0", step: "1" }));
  let scope = SCOPES[0];
  const choices = SCOPES.map((one) => [one, say(`keys.scope.${one}`)]);
  const read = () => ({
    name: name.value.trim(),
    scope,
    models: models.value.split(/[,\s]+/).filter(Boolean),
    requests_per_minute: requests.valueAsNumber || 0,
    tokens_per_minute: tokens.valueAsNumber || 0,
  });
  return dialog(say("keys.make"), (close) => [
    form(
      () => close(read()),
      {},
      field(say("keys.name"), name),
      field(say("keys.scope"), select(choices, scope, (one) => (scope = one))),
      field(say("keys.models"), models, say("keys.models.hint")),
      make("div", { class: "grid" }, field(say("keys.requests"), requests), field(say("keys.tokens"), tokens)),
      buttons(button(say("cancel"), () => close()), submitter(say("models.make"))),
    ),
  ]);
}

/** Shows the secret, this once. */
function shown({ name, secret }) {
  const text = make("input", { readonly: true, value: secret, "aria-label": say("key"), onfocus: () => text.select() });
  return dialog(say("keys.made", { name }), (close) => [
    make("p", {}, say("keys.made.hint")),
    text,
    buttons(button(say("copy"), (event) => copied(secret, event.currentTarget)), button(say("done"), () => close(), { class: "main" })),
  ]);
}
