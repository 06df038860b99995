/** Conversations as files: JSON to take over elsewhere with all branches, Markdown to read. */

import { newId, revealed } from "../dom.js";
import { say } from "../words.js";
import * as tree from "./tree.js";

const FORMAT = "corral-conversations";

/** Conversations, each with its messages, as a JSON text. */
export function asJson(conversations) {
  return JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1);
}

/** What is shown of a conversation, as Markdown. */
export function asMarkdown({ record, path }) {
  const parts = path.map(({ role, content, thinking, model }) => {
    const who = role === "user" ? say("chat.you") : model || say("chat.model");
    const thought = thinking ? `${thinking.trim().replace(/^/gm, "> ")}\n\n` : "";
    return `## ${who}\n\n${thought}${content.trim()}\n`;
  });
  const system = record.system ? `> ${record.system.trim().replace(/\n/g, "\n> ")}\n\n` : "";
  return `# ${record.title}\n\n${system}${parts.join("\n")}`;
}

/** The conversations in a JSON text. They get new ids, so that nothing here is overwritten; an `Error` when it is none. */
export function fromJson(text) {
  const { format, conversations } = JSON.parse(text);
  if (format !== FORMAT || !Array.isArray(conversations)) throw new Error("another format");
  return conversations.map(renamed);
}

function renamed({ messages, ...record }) {
  const id = newId();
  const names = new Map(messages.map((message) => [String(message.id), newId()]));
  const taken = messages.map((message) => ({
    ...message,
    id: names.get(String(message.id)),
    parent: names.get(String(message.parent)) ?? null,
    conversation: id,
    role: message.role === "user" ? "user" : "assistant",
    content: String(message.content ?? ""),
    created: Number(message.created) || 0,
    state: message.state === "running" ? "stopped" : message.state,
    images: (message.images ?? []).filter((image) => /^data:image\//.test(image)),
  }));
  const messagesById = new Map(taken.map((message) => [message.id, message]));
  const leaf = names.get(String(record.leaf)) ?? (taken.length ? tree.newestLeaf(messagesById, null) : null);
  return { ...record, id, leaf, title: String(record.title ?? ""), changed: Number(record.changed) || 0, messages: taken };
}

/** Has the browser save a text as a file. */
export function download(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = revealed(name).replace(/[\\/:*?"<>|]/g, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
