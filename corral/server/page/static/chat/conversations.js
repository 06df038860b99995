/** The conversations: read, changed, kept. Says what changed to every listener, in this tab and in others. */

import { newId, notify } from "../dom.js";
import { say } from "../words.js";
import * as database from "./database.js";
import * as tree from "./tree.js";

const OTHERS = new BroadcastChannel("corral.conversations");

/** Listens for `list` (a conversation came, went or got another title) and `conversation` (with its `id`). */
export const changes = new EventTarget();

OTHERS.onmessage = async ({ data }) => {
  await opened.get(data.id)?.refresh();
  tell(data.type, data.id);
};

/** What may have become of an answer; each of these says more than those before it. */
const STATES = ["running", "failed", "stopped", "done"];

/** Whether one copy of a message is further than another: two tabs may read the same answer, and one of them stop it. */
function isFurther(one, other) {
  const steps = STATES.indexOf(one.state) - STATES.indexOf(other.state);
  return steps > 0 || (steps === 0 && (one.received ?? 0) > (other.received ?? 0));
}

/** The conversations that were opened here, by id: an answer goes on in one that is not shown. */
const opened = new Map();

function tell(type, id) {
  changes.dispatchEvent(new CustomEvent(type, { detail: id }));
}

function told(type, id) {
  tell(type, id);
  OTHERS.postMessage({ type, id });
}

/** Keeps something and tells the user when it cannot be kept; what is shown stays shown. */
async function kept(work) {
  try {
    await work;
    return true;
  } catch (error) {
    notify(say(error?.name === "QuotaExceededError" ? "storage.full" : "storage.failed"), "error");
    return false;
  }
}

/** Tries once more to keep what there was no room for. */
async function keepRest() {
  for (const conversation of opened.values()) if (conversation.isUnkept && !(await conversation.keep())) return;
}

/** An open conversation: its record and its messages in a Map by id. */
export class Conversation {
  constructor(record, messages = []) {
    this.record = record;
    this.messages = new Map(messages.map((message) => [message.id, message]));
    /** The ids of messages that an answer of this tab is being written into. */
    this.writing = new Set();
    /** The fields of the record that were changed and are not kept yet, and the ids of such messages. */
    this.pending = {};
    this.unkept = new Set();
    /** Whether the record was kept before, and the ids of messages that were: what is not there any more was deleted. */
    this.wasKept = false;
    this.kept = new Set();
    /** Whether something could not be kept when that was tried. */
    this.isUnkept = false;
    /** Whether it was deleted, here or in another tab. */
    this.isGone = false;
  }

  static async open(id) {
    if (opened.has(id)) return opened.get(id);
    const { record, messages } = await database.whole(id);
    if (!record || opened.has(id)) return opened.get(id);
    const found = new Conversation(record, messages);
    found.#know(messages);
    opened.set(id, found);
    return found;
  }

  static start(settings) {
    const now = Date.now();
    const started = new Conversation({ id: newId(), title: "", created: now, changed: now, leaf: null, ...settings });
    opened.set(started.id, started);
    return started;
  }

  get id() {
    return this.record.id;
  }

  /** The messages that are shown, from the first to the last. */
  get path() {
    return tree.path(this.messages, this.record.leaf);
  }

  /** Adds a message below `parent` and makes it the last one that is shown. */
  async add(parent, role, fields) {
    const created = Math.max(Date.now(), ...[...this.messages.values()].map((other) => other.created + 1));
    const message = { id: newId(), conversation: this.id, parent, role, created, content: "", ...fields };
    this.messages.set(message.id, message);
    this.#change({ leaf: message.id, changed: Date.now() });
    if (!this.record.title && role === "user") this.#change({ title: titleOf(message) });
    await this.keep(message);
    told("list");
    told("conversation", this.id);
    return message;
  }

  /** Takes over what another tab has changed. What is not kept yet, or is being written here, stays as it is. */
  async refresh() {
    const { record, messages } = await database.whole(this.id);
    if (!record) return this.#lose();
    Object.assign(this.record, record, this.pending);
    const there = new Set(messages.map(({ id }) => id));
    for (const id of this.kept) if (!there.has(id) && !this.writing.has(id)) this.#drop(id);
    this.#know(messages);
    for (const message of messages) {
      const mine = this.messages.get(message.id);
      if (!mine) this.messages.set(message.id, message);
      else this.#takeOver(mine, message);
    }
  }

  /** Keeps what was changed: the record's fields, these messages, and what could not be kept before; gives whether that worked. */
  async keep(...messages) {
    if (this.isGone) return true;
    for (const { id } of messages) this.unkept.add(id);
    const wanted = [...this.unkept].map((id) => this.messages.get(id)).filter(Boolean);
    const changed = { ...this.pending };
    this.isUnkept = !(await kept(this.#merge(wanted, changed)));
    if (this.isUnkept || this.isGone) return !this.isUnkept;
    for (const [name, value] of Object.entries(changed)) if (this.pending[name] === value) delete this.pending[name];
    for (const { id } of wanted) this.unkept.delete(id);
    return true;
  }

  /** Puts changes on top of what is kept now, which another tab may have changed. */
  async #merge(wanted, changed) {
    const further = [];
    let isThere = false;
    const recordOf = (record) => {
      isThere = Boolean(record) || !this.wasKept;
      if (!isThere) return null;
      if (!record) return this.record;
      return Object.keys(changed).length ? { ...record, ...changed } : null;
    };
    const messageOf = (other, mine) => {
      if (!other) return this.kept.has(mine.id) ? null : mine;
      if (!isFurther(other, mine)) return mine;
      further.push([mine, other]);
      return null;
    };
    await database.change(this.id, recordOf, wanted, messageOf);
    if (!isThere) return this.#lose();
    this.#know(wanted);
    for (const [mine, other] of further) this.#takeOver(mine, other);
  }

  /** Takes over another tab's copy of a message if that is further. One that is being written here goes on by itself. */
  #takeOver(mine, other) {
    if (!this.writing.has(mine.id) && isFurther(other, mine)) Object.assign(mine, other);
  }

  /** These are kept now, and the record is. */
  #know(messages) {
    this.wasKept = true;
    for (const { id } of messages) this.kept.add(id);
  }

  #lose() {
    if (!this.wasKept) return;
    this.isGone = true;
    this.isUnkept = false;
  }

  #drop(id) {
    this.messages.delete(id);
    this.kept.delete(id);
    this.unkept.delete(id);
  }

  #change(fields) {
    Object.assign(this.record, fields);
    Object.assign(this.pending, fields);
  }

  /** Has other tabs show it as it is kept now. */
  tellOthers() {
    OTHERS.postMessage({ type: "conversation", id: this.id });
  }

  /** What is kept of a message, which another tab may have written. */
  keptOf(message) {
    return database.get("messages", message.id);
  }

  /** Keeps changes of the conversation's own fields. */
  async set(fields) {
    this.#change(fields);
    await this.keep();
    told("list", this.id);
  }

  /** Shows another branch: the one that a message stands in. */
  async walk(message) {
    await this.set({ leaf: tree.newestLeaf(this.messages, message.id) });
    told("conversation", this.id);
  }

  /** Removes a message and what follows it. What is shown ends before it, or goes on with a branch beside it. */
  async cut(message) {
    const gone = tree.withAllBelow(this.messages, message.id);
    const beside = tree.siblings(this.messages, message).findLast(({ id }) => id !== message.id);
    await this.set({ leaf: beside ? tree.newestLeaf(this.messages, beside.id) : message.parent });
    if (!(await kept(database.remove("messages", ...gone)))) return;
    for (const id of gone) this.#drop(id);
    told("conversation", this.id);
    await keepRest();
  }
}

function titleOf({ content, files = [] }) {
  const line = content.trim().split("\n")[0] || files[0]?.name || say("chat.untitled");
  return line.length > 60 ? `${line.slice(0, 59)}…` : line;
}

/** The records of all conversations, the last changed first; also of those for which there was no room. */
export async function list() {
  const records = new Map((await database.all("conversations")).map((record) => [record.id, record]));
  for (const { id, isUnkept, record } of opened.values()) if (isUnkept) records.set(id, record);
  return [...records.values()].sort((a, b) => b.changed - a.changed);
}

/** Conversations with all their messages, as they are shown here or else as they are kept. */
export function whole(ids) {
  return Promise.all(
    ids.map(async (id) => {
      const shown = opened.get(id);
      if (shown) return { ...shown.record, messages: [...shown.messages.values()] };
      const { record, messages } = await database.whole(id);
      return { ...record, messages };
    }),
  );
}

/** Those that have a text in their title or in a message. */
export async function search(text) {
  const inTexts = await database.searched(text);
  const wanted = text.toLowerCase();
  return (await list()).filter(({ id, title }) => title.toLowerCase().includes(wanted) || inTexts.has(id));
}

export async function remove(id) {
  if (!(await kept(database.removeConversation(id)))) return;
  const shown = opened.get(id);
  if (shown) shown.isGone = true; // an answer of it may be under way
  opened.delete(id);
  told("list");
  OTHERS.postMessage({ type: "conversation", id });
  await keepRest();
}

/** Keeps conversations as `exchange.js` read them. */
export async function take(conversations) {
  for (const { messages, ...record } of conversations) await kept(database.putTogether(record, messages));
  told("list");
}
