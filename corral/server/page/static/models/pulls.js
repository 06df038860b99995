/** Models that are being fetched. They go on in every view and are shown in every tab; one that was interrupted is offered again. */

import { newId } from "../dom.js";
import { lines, Unreachable } from "../server.js";
import { say } from "../words.js";

const UNFINISHED = "corral.pulls";
const OTHERS = new BroadcastChannel("corral.pulls");
/** Milliseconds between two words to the other tabs about a pull that moves. */
const TOLD_EVERY = 250;
/** Milliseconds without a word after which the tab that ran a pull is taken for gone. Browsers slow down what is hidden. */
const SILENCE = 90_000;
/** The id of this tab. */
const TAB = newId();

/** Tells listeners `change` when a pull has moved, and `done` when one has ended with its model. */
export const changes = new EventTarget();

/**
 * Pulls by name: those of this tab, those of others, and those that an earlier visit did not finish. `tab`: which one runs
 * it; `moved`: bytes, rate and seconds left, as `progress` gives them.
 */
export const pulls = new Map();

for (const { name, insecure } of JSON.parse(localStorage.getItem(UNFINISHED) ?? "[]")) pulls.set(name, paused(name, insecure));
OTHERS.onmessage = ({ data }) => LISTENERS[data.type](data);
OTHERS.postMessage({ type: "ask" });
addEventListener("pagehide", () => ours().forEach((pull) => tell({ ...pull, state: "paused" })));

/** What other tabs say, and what is done then. */
const LISTENERS = {
  /** A tab was opened: it wants to know what runs here. */
  ask: () => ours().forEach(tell),
  /** A pull of another tab has moved, ended or was forgotten. */
  pull({ pull }) {
    const { name, state } = pull;
    if (ours().some((own) => own.name === name)) return; // started in both at once
    clearTimeout(pulls.get(name)?.silence);
    if (state === "done" || state === "forgotten") pulls.delete(name);
    else pulls.set(name, { ...pull, silence: state === "running" && setTimeout(() => lose(name), SILENCE) });
    changed(state === "done" ? "done" : "change");
  },
  /** Another tab wants a pull to pause that may run here. */
  pause: ({ name }) => pulls.get(name)?.control?.abort(),
};

function paused(name, insecure) {
  return { name, insecure, state: "paused", status: "", moved: { completed: 0, total: 0, rate: 0, left: null } };
}

const ours = () => [...pulls.values()].filter(({ tab, state }) => tab === TAB && state === "running");

/** Tells other tabs of a pull, without what only this one can use. */
function tell({ name, insecure, state, status, error, tab, moved }) {
  OTHERS.postMessage({ type: "pull", pull: { name, insecure, state, status, error, tab, moved } });
}

function changed(type = "change") {
  changes.dispatchEvent(new Event(type));
}

/** Takes a pull of another tab for paused, of which nothing is heard any more. */
function lose(name) {
  pulls.set(name, paused(name, pulls.get(name).insecure));
  changed();
}

/** Starts a pull or goes on with it: the server continues with what is there. `insecure`: plain HTTP will do. */
export async function start(name, insecure = false) {
  if (pulls.get(name)?.state === "running") return;
  const control = new AbortController();
  const pull = { ...paused(name, insecure), state: "running", tab: TAB, control, parts: new Map(), began: performance.now(), before: null, told: 0 };
  pulls.set(name, pull);
  remember();
  tell(pull);
  changed();
  try {
    for await (const [line] of lines("/api/pull", { model: name, insecure }, control)) take(pull, line);
    pull.state = "done";
  } catch (error) {
    pull.state = control.signal.aborted ? "paused" : "failed";
    pull.error = error instanceof Unreachable ? say("unreachable") : error.message;
  }
  if (pull.state === "done") pulls.delete(name);
  remember();
  tell(pull);
  changed(pull.state === "done" ? "done" : "change");
}

/** Pauses a pull, whichever tab runs it. */
export function pause(name) {
  const pull = pulls.get(name);
  if (pull?.tab === TAB) return pull.control.abort();
  OTHERS.postMessage({ type: "pause", name });
  if (pull) lose(name);
}

/** Forgets a pull that does not run. What was fetched of it is removed by the server in time. */
export function forget(name) {
  tell({ ...pulls.get(name), state: "forgotten" });
  pulls.delete(name);
  remember();
  changed();
}

function take(pull, { status, digest, total, completed = 0 }) {
  pull.status = status;
  if (digest && total) pull.parts.set(digest, { total, completed });
  pull.moved = progress(pull);
  if (performance.now() - pull.told > TOLD_EVERY) {
    pull.told = performance.now();
    tell(pull);
  }
  changed();
}

/** Bytes that are there and in all, bytes a second, and the seconds that are left where that can be told. */
function progress(pull) {
  const parts = [...pull.parts.values()];
  const completed = parts.reduce((sum, part) => sum + part.completed, 0);
  const total = parts.reduce((sum, part) => sum + part.total, 0);
  pull.before ??= completed || null;
  const seconds = (performance.now() - pull.began) / 1000;
  const rate = pull.before === null || seconds < 2 ? 0 : (completed - pull.before) / seconds;
  return { completed, total, rate, left: rate > 0 ? (total - completed) / rate : null };
}

function remember() {
  localStorage.setItem(UNFINISHED, JSON.stringify([...pulls.values()].map(({ name, insecure }) => ({ name, insecure }))));
}
