/** The view of conversations: the side bar, the open conversation, and where a message is written. */

import { button, buttons, confirmed, dialog, field, make, newId, notify, takeDrops } from "../dom.js";
import { Unreachable } from "../server.js";
import { place, say } from "../words.js";
import * as answers from "./answers.js";
import { Composer } from "./composer.js";
import * as conversations from "./conversations.js";
import { installed, Picker } from "./picker.js";
import { body } from "./request.js";
import { settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { Thread } from "./thread.js";
import * as tree from "./tree.js";

/** Milliseconds until a server that did not answer is asked again. */
const RETRY = 2000;
const EMPTY = { system: "", options: {}, think: "", format: "", alternatives: false };

export async function show(place, [id]) {
  const view = new View(place);
  await view.open(id);
  return () => view.leave();
}

class View {
  constructor(place) {
    this.left = new AbortController();
    this.models = this.#installed();
    this.sidebar = new Sidebar();
    this.picker = new Picker((model) => this.#chose(model), say("chat.pick"));
    this.second = new Picker(() => this.#greet(), say("chat.beside"));
    this.thread = new Thread((message) => this.#actions(message));
    this.composer = new Composer({
      send: (draft) => this.#send(draft),
      stop: () => this.#stop(),
      drafted: (draft) => this.#drafted(draft),
    });
    this.settings = { ...EMPTY };
    this.isOffered = false;
    place.append(this.sidebar.element, this.#main());
    takeDrops((files) => this.composer.take(files), this.left.signal);
    this.changed = ({ detail }) => detail === this.conversation?.id && this.#change();
    conversations.changes.addEventListener("conversation", this.changed);
  }

  leave() {
    this.left.abort();
    conversations.changes.removeEventListener("conversation", this.changed);
    this.sidebar.leave();
  }

  /** Opens a conversation, or an empty one that begins to be kept with its first message. */
  async open(id) {
    this.conversation = id ? await conversations.Conversation.open(id) : null;
    if (id && !this.conversation) notify(say("chat.gone"), "error");
    const record = this.conversation?.record;
    this.settings = { ...EMPTY, ...record };
    this.sidebar.current = id;
    if (this.conversation) answers.resume(this.conversation);
    this.#redraw();
    this.#untilEnded();
    this.composer.focus();
    this.offered = this.#offer(record?.model);
  }

  /** What is installed; waits for a server that does not answer, which is said once. A message can be written meanwhile. */
  async #installed() {
    for (let isSaid = false; ; isSaid = true) {
      try {
        return await installed();
      } catch (error) {
        if (!isSaid) notify(error instanceof Unreachable ? say("unreachable") : error.message, "error");
        if (!(error instanceof Unreachable) || this.left.signal.aborted) return [];
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
  }

  async #offer(wanted) {
    const models = await this.models;
    this.picker.offer(models, wanted);
    this.second.offer(models, undefined, say("chat.beside.none"));
    this.note.hidden = models.length > 0;
    this.isOffered = true;
    this.#greet();
    this.offered = null;
  }

  #main() {
    const note = make("p", {}, say("chat.no.models"), " ", make("a", { href: "#/models" }, say("view.models")));
    this.note = make("div", { class: "welcome", hidden: true }, note);
    return make(
      "section",
      { class: "conversation" },
      make(
        "div",
        { class: "bar" },
        button(say("chats"), () => this.sidebar.toggle(), { icon: "menu", class: "plain narrow" }),
        this.picker.element,
        this.second.element,
        make("span", { class: "space" }),
        button(say("settings"), () => this.#set(), { icon: "sliders", class: "plain" }),
      ),
      this.note,
      this.thread.element,
      this.composer.element,
    );
  }

  /** The conversation was changed, here or in another tab. */
  #change() {
    if (this.conversation.isGone) {
      answers.stopAll(answers.runningIn(this.conversation));
      notify(say("chat.gone"), "error");
      location.hash = "#/chat";
      return;
    }
    this.settings = { ...EMPTY, ...this.conversation.record };
    answers.readAlong(this.conversation);
    this.#redraw();
    this.#untilEnded();
  }

  #redraw() {
    if (this.conversation) this.thread.show(this.conversation);
    else this.thread.element.replaceChildren();
    this.#greet();
    this.composer.busy = Boolean(this.conversation && answers.runningIn(this.conversation).length);
  }

  /** What stands where no conversation is yet, once it is known to which other servers one may go. */
  #greet() {
    if (this.conversation || !this.isOffered) return;
    const places = [...new Set([this.picker, this.second].flatMap((picker) => picker.places).map(place))];
    const hello = places.length ? say("chat.hello.away", { places: places.join(", ") }) : say("chat.hello");
    this.thread.element.replaceChildren(make("p", { class: "hello" }, hello));
  }

  #chose(model) {
    this.#greet();
    this.conversation?.set({ model });
    this.composer.count();
  }

  async #set() {
    const chosen = await settings(this.settings, this.picker.capabilities);
    if (!chosen) return;
    Object.assign(this.settings, chosen);
    await this.conversation?.set(chosen);
    this.composer.count();
  }

  /** The body whose length is counted while a message is written. */
  #drafted(draft) {
    if (!this.picker.model || !(draft.content || draft.images.length || draft.files.length)) return null;
    return body(this.settings, [...(this.conversation?.path ?? []), { role: "user", ...draft }], this.picker.model);
  }

  #send(draft) {
    if (this.offered) {
      this.offered.then(() => this.composer.submit());
      return false;
    }
    if (!this.picker.model) {
      notify(say("chat.no.models"), "error");
      return false;
    }
    this.#ask(draft, this.conversation?.record.leaf ?? null);
    return true;
  }

  async #ask(draft, parent) {
    if (!this.conversation) {
      const { system, options, think, format, alternatives } = this.settings;
      const chosen = { system, options, think, format, alternatives, model: this.picker.model };
      this.conversation = conversations.Conversation.start(chosen);
      history.replaceState(null, "", `#/chat/${this.conversation.id}`);
    }
    const question = await this.conversation.add(parent, "user", draft);
    this.sidebar.current = this.conversation.id;
    await this.#answer(question.id);
  }

  /** Has the chosen model answer, and the second one beside it where there is one. */
  async #answer(parent) {
    const models = [this.second.model, this.picker.model].filter(Boolean);
    const group = models.length > 1 ? newId() : undefined;
    await this.#run(models.map((model) => [parent, model, { group }]));
  }

  /** Runs answers, each given as what `answers.answer` takes after the conversation. */
  async #run(wanted) {
    const conversation = this.conversation;
    await Promise.all(wanted.map((one) => answers.answer(conversation, ...one)));
    this.#redraw();
    await this.#untilEnded();
  }

  /** Lets a message be sent again when the answers under way have ended. */
  async #untilEnded() {
    const conversation = this.conversation;
    if (!conversation) return;
    await answers.ended(conversation);
    if (this.conversation === conversation) this.composer.busy = answers.runningIn(conversation).length > 0;
  }

  #stop() {
    answers.stopAll(answers.runningIn(this.conversation));
  }

  #actions(message) {
    return {
      edit: () => this.#edit(message),
      again: () => this.#run([[message.parent, this.picker.model || message.model]]),
      walk: (sibling) => this.conversation.walk(sibling),
      remove: () => this.#remove(message),
      goOn: (begin) => this.#run([[message.parent, message.model, { begin }]]),
    };
  }

  async #remove(message) {
    if (!(await confirmed(say("chat.remove.sure"), say("chats.delete"), say("cancel")))) return;
    await answers.stopAll(tree.withAllBelow(this.conversation.messages, message.id));
    await this.conversation.cut(message);
  }

  async #edit(message) {
    const input = make("textarea", { rows: "8" });
    input.value = message.content;
    const text = await dialog(
      say("chat.edit"),
      (close) => [
        field(say("chat.edit.hint"), input),
        buttons(button(say("cancel"), () => close()), button(say("chat.send"), () => close(input.value.trim()), { class: "main" })),
      ],
      { class: "broad" },
    );
    if (text) await this.#ask({ content: text, images: message.images ?? [], files: message.files ?? [] }, message.parent);
  }
}
