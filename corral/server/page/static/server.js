/** The server's public API. Errors are sentences for the user: `ServerError`, or `Unreachable` when nobody answers. */

export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export class Unreachable extends Error {}

const KEY = "corral.key";
const NEW_LINE = 10;

/** The key of this browser. One that does not stay goes with the tab. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "",
  stays: () => sessionStorage.getItem(KEY) === null,
  set(value, stays) {
    for (const storage of [sessionStorage, localStorage]) storage.removeItem(KEY);
    if (value) (stays ? localStorage : sessionStorage).setItem(KEY, value);
  },
};

let refused = async () => false;

/** What is done when the server asks for a key; it resolves to whether there is another one now. */
export function whenRefused(listener) {
  refused = listener;
}

/** The JSON that a route answers; a body makes it a POST unless a method is given. */
export async function ask(path, body, { method, signal } = {}) {
  const response = await request(path, body, method, signal);
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

/**
 * The objects of a streamed answer, one a line, each with the bytes that it took. An error in the middle is thrown as one
 * before the beginning is.
 */
export async function* lines(path, body, { signal, headers } = {}) {
  const response = await request(path, body, undefined, signal, headers);
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let rest = new Uint8Array();
  try {
    for (;;) {
      const { done, value } = await readFrom(reader);
      if (done) return;
      let begin = 0;
      const bytes = joined(rest, value);
      for (let end; (end = bytes.indexOf(NEW_LINE, begin)) >= 0; begin = end + 1) {
        yield [checked(JSON.parse(decoder.decode(bytes.subarray(begin, end)))), end + 1 - begin];
      }
      rest = bytes.slice(begin);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function joined(first, second) {
  if (!first.length) return second;
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

async function readFrom(reader) {
  try {
    return await reader.read();
  } catch (error) {
    throw error.name === "AbortError" ? error : new Unreachable();
  }
}

function checked(line) {
  if (line.error) throw new ServerError(sentence(line.error), 200);
  return line;
}

/** A response that is no error. While the server asks for a key, its user is asked for one. */
async function request(...asked) {
  for (;;) {
    const sent = key.get();
    const response = await sendOnce(...asked);
    if (response.ok) return response;
    if (response.status !== 401 || !(key.get() !== sent || (await refused()))) throw await failure(response);
  }
}

async function sendOnce(path, body, method = body === undefined ? "GET" : "POST", signal, more = {}) {
  const headers = { accept: "application/json", ...more };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  const sent = body === undefined || body instanceof Blob ? body : JSON.stringify(body);
  try {
    return await fetch(path, { method, headers, body: sent, signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Unreachable();
  }
}

async function failure(response) {
  const text = await response.text().catch(() => "");
  try {
    return new ServerError(sentence(JSON.parse(text).error), response.status);
  } catch {
    return new ServerError(text || `HTTP ${response.status}`, response.status);
  }
}

function sentence(error) {
  return typeof error === "string" ? error : (error?.message ?? JSON.stringify(error));
}
