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
export const remove = (store, id) => transaction([store], "readwrite", (from) => from.delete(id));

export const put = (store, ...records) =>
  transaction([store], "readwrite", (into) => {
    for (const record of records) into.put(record);
  });

/** The messages of a conversation, in no order. */
export const messagesOf = (id) =>
  transaction(["messages"], "readonly", (from) => from.index("conversation").getAll(id));

/** Keeps a conversation and messages of it together. */
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
