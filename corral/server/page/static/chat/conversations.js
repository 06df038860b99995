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
  constructor(record, messages) {
    this.record = record;
    this.messages = new Map(messages.map((message) => [message.id, message]));
    /** The ids of messages that an answer of this tab is being written into. */
    this.writing = new Set();
    /** The ids of messages that could not be kept yet. */
    this.unkept = new Set();
    this.isUnkept = false;
    /** Whether another tab has deleted it. */
    this.isGone = false;
  }

  static async open(id) {
    const record = opened.has(id) ? null : await database.get("conversations", id);
    if (record) opened.set(id, new Conversation(record, await database.messagesOf(id)));
    return opened.get(id);
  }

  static start(settings) {
    const now = Date.now();
    const started = new Conversation({ id: newId(), title: "", created: now, changed: now, leaf: null, ...settings }, []);
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
    Object.assign(this.record, { leaf: message.id, changed: Date.now() });
    if (!this.record.title && role === "user") this.record.title = titleOf(message);
    await this.keep(message);
    told("list");
    told("conversation", this.id);
    return message;
  }

  /** Takes over what another tab has changed. What is being written here, or could not be kept, stays as it is. */
  async refresh() {
    const [record, messages] = await Promise.all([database.get("conversations", this.id), database.messagesOf(this.id)]);
    this.isGone = !record && !this.isUnkept;
    if (!this.isUnkept) Object.assign(this.record, record);
    const isOurs = (id) => this.writing.has(id) || this.unkept.has(id);
    const kept = new Set(messages.map(({ id }) => id));
    for (const id of this.messages.keys()) if (!kept.has(id) && !isOurs(id)) this.messages.delete(id);
    for (const message of messages) {
      const mine = this.messages.get(message.id);
      if (!mine) this.messages.set(message.id, message);
      else if (!isOurs(message.id)) Object.assign(mine, message);
    }
  }

  /** Keeps the record and messages as they are now, with those that could not be kept before; gives whether that worked. */
  async keep(...messages) {
    if (this.isGone) return true;
    for (const { id } of messages) this.unkept.add(id);
    const wanted = [...this.unkept];
    const found = wanted.map((id) => this.messages.get(id)).filter(Boolean);
    this.isUnkept = !(await kept(database.putTogether(this.record, found)));
    if (!this.isUnkept) for (const id of wanted) this.unkept.delete(id);
    return !this.isUnkept;
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
    Object.assign(this.record, fields);
    await this.keep();
    told("list");
  }

  /** Shows another branch: the one that a message stands in. */
  async walk(message) {
    await this.set({ leaf: tree.newestLeaf(this.messages, message.id) });
    told("conversation", this.id);
  }

  /** Removes a message and what follows it. What is shown ends before it, or goes on with a branch beside it. */
  async cut(message) {
    const gone = tree.withAllBelow(this.messages, message.id);
    for (const id of gone) this.messages.delete(id);
    const beside = tree.siblings(this.messages, message).at(-1);
    await this.set({ leaf: beside ? tree.newestLeaf(this.messages, beside.id) : message.parent });
    await kept(Promise.all(gone.map((id) => database.remove("messages", id))));
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
      return { ...(await database.get("conversations", id)), messages: await database.messagesOf(id) };
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
  opened.delete(id);
  if (!(await kept(database.removeConversation(id)))) return;
  told("list");
  OTHERS.postMessage({ type: "conversation", id });
  await keepRest();
}

/** Keeps conversations as `exchange.js` read them. */
export async function take(conversations) {
  for (const { messages, ...record } of conversations) await kept(database.putTogether(record, messages));
  told("list");
}
