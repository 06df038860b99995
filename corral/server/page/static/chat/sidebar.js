/** The conversations at the side: search, a new one, what can be done with one of them or all. */

import { button, confirmed, debounced, dialog, field, form, make, notify } from "../dom.js";
import { date, say } from "../words.js";
import * as answers from "./answers.js";
import * as conversations from "./conversations.js";
import * as exchange from "./exchange.js";

export class Sidebar {
  constructor() {
    this.search = make("input", {
      type: "search",
      placeholder: say("chats.search"),
      "aria-label": say("chats.search"),
      oninput: debounced(() => this.draw(), 200),
    });
    this.list = make("ul", { class: "chats" });
    const chooser = make("input", { type: "file", accept: ".json,application/json", hidden: true, onchange: () => this.#import(chooser) });
    this.element = make(
      "aside",
      { class: "sidebar", "aria-label": say("chats"), onkeydown: ({ key }) => key === "Escape" && this.close() },
      make(
        "div",
        { class: "row" },
        make("a", { class: "button main", href: "#/chat", onclick: () => this.close() }, say("chats.new")),
        button(say("close"), () => this.close(), { icon: "close", class: "plain narrow" }),
      ),
      this.search,
      this.list,
      make(
        "div",
        { class: "row" },
        button(say("chats.import"), () => chooser.click(), { class: "plain" }),
        button(say("chats.export"), () => this.#exportAll(), { class: "plain" }),
        chooser,
      ),
    );
    this.redraw = () => this.draw();
    conversations.changes.addEventListener("list", this.redraw);
  }

  /** Opens or closes the list where the window is too narrow for it beside a conversation. */
  toggle() {
    if (this.element.classList.toggle("open")) this.search.focus();
  }

  close() {
    this.element.classList.remove("open");
  }

  leave() {
    conversations.changes.removeEventListener("list", this.redraw);
  }

  /** Shows the conversations, and marks the one that is open. */
  set current(id) {
    this.open = id;
    this.draw();
  }

  async draw() {
    const wanted = this.search.value.trim();
    const found = wanted ? await conversations.search(wanted) : await conversations.list();
    if (wanted !== this.search.value.trim()) return;
    const nothing = make("li", { class: "empty" }, say(wanted ? "chats.none.found" : "chats.none"));
    const focused = this.list.contains(document.activeElement) ? document.activeElement : null;
    const same = focused && `li[data-id="${focused.closest("li").dataset.id}"] ${focused.localName}`;
    this.list.replaceChildren(...(found.length ? found.map((record) => this.#entry(record)) : [nothing]));
    if (same) (this.list.querySelector(same) ?? this.search).focus();
  }

  #entry(record) {
    const current = record.id === this.open ? { "aria-current": "page" } : {};
    return make(
      "li",
      { "data-id": record.id },
      make("a", { href: `#/chat/${record.id}`, onclick: () => this.close(), title: date(record.changed), dir: "auto", ...current }, record.title || say("chat.untitled")),
      button(say("chats.more"), () => this.#more(record), { icon: "more", class: "plain" }),
    );
  }

  async #more(record) {
    const title = make("input", { value: record.title, maxlength: "200" });
    const act = (name, close, attributes) => button(say(`chats.${name}`), () => close(name), attributes);
    const chosen = await dialog(record.title, (close) => [
      form(() => close("rename"), {}, field(say("chats.title"), title)),
      make("div", { class: "column" }, act("rename", close), act("markdown", close), act("json", close), act("delete", close, { class: "danger" })),
    ]);
    if (chosen) await this[`_${chosen}`](record, title.value.trim());
  }

  async _rename(record, title) {
    const open = await conversations.Conversation.open(record.id);
    await open?.set({ title });
  }

  async _markdown(record) {
    const open = await conversations.Conversation.open(record.id);
    exchange.download(`${record.title}.md`, exchange.asMarkdown(open), "text/markdown");
  }

  async _json(record) {
    exchange.download(`${record.title}.json`, exchange.asJson(await conversations.whole([record.id])), "application/json");
  }

  async _delete(record) {
    if (!(await confirmed(say("chats.delete.sure", { title: record.title }), say("chats.delete"), say("cancel")))) return;
    const shown = await conversations.Conversation.open(record.id);
    if (shown) await answers.stopAll(answers.runningIn(shown));
    await conversations.remove(record.id);
    if (record.id === this.open) location.hash = "#/chat";
  }

  async #exportAll() {
    const ids = (await conversations.list()).map(({ id }) => id);
    exchange.download("corral.json", exchange.asJson(await conversations.whole(ids)), "application/json");
  }

  async #import(chooser) {
    const [file] = chooser.files;
    chooser.value = "";
    try {
      const taken = exchange.fromJson(await file.text());
      await conversations.take(taken);
      notify(say("chats.imported", { count: taken.length }));
    } catch {
      notify(say("chats.import.wrong", { name: file.name }), "error");
    }
  }
}
