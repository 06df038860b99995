/** What the server is asked for: a conversation as the body of `/api/chat`. */

const REPLY_FIELDS = { user: "user", assistant: "assistant" };

/** The body for the messages of a path, with the conversation's settings. */
export function body(record, path, model) {
  const messages = path.filter(({ role, state }) => role in REPLY_FIELDS && state !== "failed").map(message);
  const system = record.system?.trim();
  return {
    model,
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
    options: record.options ?? {},
    ...(record.think === undefined || record.think === "" ? {} : { think: thinking(record.think) }),
    ...(record.format ? { format: record.format === "json" ? "json" : JSON.parse(record.format) } : {}),
    ...(record.keepAlive ? { keep_alive: record.keepAlive } : {}),
    ...(record.alternatives ? { logprobs: true, top_logprobs: 5 } : {}),
  };
}

function thinking(chosen) {
  return { on: true, off: false }[chosen] ?? chosen;
}

function message({ role, content, thinking: thought, calls, images = [], files = [] }) {
  const texts = files.map(({ name, text }) => `${name}:\n\`\`\`\n${text}\n\`\`\`\n\n`).join("");
  return {
    role,
    content: texts + content,
    ...(thought ? { thinking: thought } : {}),
    ...(calls?.length ? { tool_calls: calls } : {}),
    ...(images.length ? { images: images.map((address) => address.slice(address.indexOf(",") + 1)) } : {}),
  };
}
