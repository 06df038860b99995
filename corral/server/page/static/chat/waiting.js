/** What happens before an answer begins, and why it ended where it did not end by itself. */

import { make } from "../dom.js";
import * as words from "../words.js";

const { say } = words;

/** When messages were first seen to be read, and how far that was: a page that is loaded again begins anew. */
const seen = new WeakMap();

/** Shows in `state` what a message waits for, or what became of it; hides it when there is nothing to say. */
export function waiting(state, message, runs) {
  const sentence = runs ? before(message) : ended(message);
  state.hidden = !sentence;
  state.classList.toggle("error", message.state === "failed");
  const share = runs && message.waiting?.total ? message.waiting.completed / message.waiting.total : null;
  const bar = share === null ? "" : make("progress", { max: "1", value: share, "aria-label": sentence });
  state.replaceChildren(sentence, bar);
}

function before(message) {
  if (message.content || message.calls?.length) return "";
  if (!message.waiting) return message.thinking ? say("wait.thinking") : say("wait.any");
  const { stage, completed, total, ahead } = message.waiting;
  if (stage === "queued") return ahead ? say("wait.queued.behind", { count: ahead }) : say("wait.queued");
  if (stage === "loading" || stage === "preparing") return say(`wait.${stage}`);
  if (completed >= total) return say("wait.any");
  return `${say("wait.reading", { completed: words.count(completed), total: words.count(total) })}${left(message, completed, total)}`;
}

/** The time that reading the rest will take, when enough was read to tell. */
function left(message, completed, total) {
  if (!seen.has(message)) seen.set(message, { since: performance.now(), from: completed });
  const { since, from } = seen.get(message);
  const seconds = (performance.now() - since) / 1000;
  if (completed <= from || seconds < 1) return "";
  return ` · ${say("wait.left", { time: words.duration(((total - completed) * seconds) / (completed - from)) })}`;
}

function ended({ state, error }) {
  if (state === "stopped") return say("chat.stopped");
  if (state === "running") return say("wait.any"); // in another tab, and nothing has come yet
  return state === "failed" ? error : "";
}
