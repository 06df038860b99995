/** Conversations in the browser's IndexedDB. A message is a record of its own, so that two tabs do not overwrite each other's. */

let opened;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("corral", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("conversations", { keyPath: "id" });
      request.result.createObjectStore("messages", { keyPath: "id" }).createIndex("conversation", "conversation");
      request.result.createObjectStore("presets", { keyPath: "name" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

/** Does something with stores in one transaction: all of it is kept or nothing. Rejects when the disk is full. */
async function transaction(stores, mode, act) {
  const open = (await database()).transaction(stores, mode);
  return new Promise((resolve, reject) => {
    const request = act(...stores.map((name) => open.objectStore(name)));
    open.oncomplete = () => resolve(request?.result);
    open.onabort = () => reject(open.error ?? new DOMException("", "AbortError")); // follows every error
  });
}

export const all = (store) => transaction([store], "readonly", (from) => from.getAll());
export const get = (store, id) => transaction([store], "readonly", (from) => from.get(id));

export const remove = (store, ...ids) =>
  transaction([store], "readwrite", (from) => {
    for (const id of ids) from.delete(id);
  });

export const put = (store, ...records) =>
  transaction([store], "readwrite", (into) => {
    for (const record of records) into.put(record);
  });

/** A conversation's record and its messages in no order, as they are at one moment. Without a record it is not kept. */
export async function whole(id) {
  const found = {};
  await transaction(["conversations", "messages"], "readonly", (conversations, messages) => {
    conversations.get(id).onsuccess = ({ target }) => (found.record = target.result);
    messages.index("conversation").getAll(id).onsuccess = ({ target }) => (found.messages = target.result);
  });
  return found;
}

/**
 * Changes a conversation's record and messages of it in one transaction, so that nothing is lost that another tab keeps
 * at the same time. `recordOf(kept)` and `messageOf(kept, message)` give what is to be kept, where `kept` is `undefined`
 * for what is not there; what they do not give stays as it is. Without a record no message is kept, either.
 */
export const change = (id, recordOf, messages, messageOf) =>
  transaction(["conversations", "messages"], "readwrite", (conversations, into) => {
    conversations.get(id).onsuccess = ({ target: { result: kept } }) => {
      const record = recordOf(kept);
      if (record) conversations.put(record);
      if (record || kept) for (const message of messages) changeOne(into, message, messageOf);
    };
  });

function changeOne(into, message, messageOf) {
  into.get(message.id).onsuccess = ({ target: { result: kept } }) => {
    const wanted = messageOf(kept, message);
    if (wanted) into.put(wanted);
  };
}

/** Keeps a new conversation and its messages together. */
export const putTogether = (conversation, messages) =>
  transaction(["conversations", "messages"], "readwrite", (conversations, into) => {
    conversations.put(conversation);
    for (const message of messages) into.put(message);
  });

export const removeConversation = (id) =>
  transaction(["conversations", "messages"], "readwrite", (conversations, from) => {
    conversations.delete(id);
    from.index("conversation").openKeyCursor(id).onsuccess = (event) => {
      const cursor = event.target.result;
      if (!cursor) return;
      from.delete(cursor.primaryKey);
      cursor.continue();
    };
  });

/** The ids of the conversations in which a message has the text, in any case. Goes through one message after the other. */
export async function searched(text) {
  const found = new Set();
  const wanted = text.toLowerCase();
  await transaction(["messages"], "readonly", (from) => {
    from.openCursor().onsuccess = (event) => {
      const cursor = event.target.result;
      if (!cursor) return;
      const { conversation, content } = cursor.value;
      if (!found.has(conversation) && content.toLowerCase().includes(wanted)) found.add(conversation);
      cursor.continue();
    };
  });
  return found;
}
