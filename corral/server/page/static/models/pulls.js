/** Models that are being fetched. They go on in every view; one that was interrupted is offered again. */

import { lines, Unreachable } from "../server.js";
import { say } from "../words.js";

const UNFINISHED = "corral.pulls";

/** Tells listeners `change` when a pull has moved. */
export const changes = new EventTarget();

/** Pulls of this page by name, and those that an earlier visit did not finish. */
export const pulls = new Map();

for (const { name, insecure } of JSON.parse(localStorage.getItem(UNFINISHED) ?? "[]")) {
  pulls.set(name, { name, insecure, state: "paused", status: "", parts: new Map() });
}

/** Starts a pull or goes on with it: the server continues with what is there. `insecure`: plain HTTP will do. */
export async function start(name, insecure = false) {
  if (pulls.get(name)?.state === "running") return;
  const control = new AbortController();
  const pull = { name, insecure, state: "running", status: "", parts: new Map(), control, began: performance.now(), before: null };
  pulls.set(name, pull);
  remember();
  changes.dispatchEvent(new Event("change"));
  try {
    for await (const [line] of lines("/api/pull", { model: name, insecure }, control)) take(pull, line);
    pull.state = "done";
  } catch (error) {
    pull.state = control.signal.aborted ? "paused" : "failed";
    pull.error = error instanceof Unreachable ? say("unreachable") : error.message;
  }
  if (pull.state === "done") pulls.delete(name);
  remember();
  changes.dispatchEvent(new Event(pull.state === "done" ? "done" : "change"));
}

export function pause(name) {
  pulls.get(name)?.control?.abort();
}

/** Forgets a pull that does not run. What was fetched of it is removed by the server in time. */
export function forget(name) {
  pulls.delete(name);
  remember();
  changes.dispatchEvent(new Event("change"));
}

/** Bytes that are there and in all, and seconds that are left where that can be told. */
export function progress(pull) {
  const parts = [...pull.parts.values()];
  const completed = parts.reduce((sum, part) => sum + part.completed, 0);
  const total = parts.reduce((sum, part) => sum + part.total, 0);
  pull.before ??= completed || null;
  const seconds = (performance.now() - (pull.began ?? 0)) / 1000;
  const rate = pull.before === null || seconds < 2 ? 0 : (completed - pull.before) / seconds;
  return { completed, total, rate, left: rate > 0 ? (total - completed) / rate : null };
}

function take(pull, { status, digest, total, completed = 0 }) {
  pull.status = status;
  if (digest && total) pull.parts.set(digest, { total, completed });
  changes.dispatchEvent(new Event("change"));
}

function remember() {
  localStorage.setItem(UNFINISHED, JSON.stringify([...pulls.values()].map(({ name, insecure }) => ({ name, insecure }))));
}
