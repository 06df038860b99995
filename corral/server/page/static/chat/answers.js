/** Answers under way. They go on when another view is shown, and what came so far is kept every second. */

import { ask, lines, ServerError, Unreachable } from "../server.js";
import { say } from "../words.js";
import { body } from "./request.js";
import * as tree from "./tree.js";

/** Milliseconds. */
const SAVED_EVERY = 1000;
/** Seconds to wait before each attempt to read on. */
const RETRIES = [1, 3, 8];

/** The answers under way by the ids of their messages. */
const running = new Map();

/** Tells listeners `ID` when the message of that id has grown or ended. */
export const progress = new EventTarget();

export const isRunning = (id) => running.has(id);

/** Ends an answer. That it was stopped is kept first, for tabs that read along. */
export async function stop(id) {
  const { control, ended } = running.get(id);
  control.abort();
  await ended;
  await ask(`/api/answers/${id}`, undefined, { method: "DELETE" }).catch(() => {}); // it may have ended by itself
}

/** Ends the answers among these messages. */
export const stopAll = (ids) => Promise.all(ids.filter(isRunning).map(stop));

/** The ids of a conversation's messages that are under way. */
export const runningIn = (conversation) => [...running.keys()].filter((id) => conversation.messages.has(id));

/** Resolves when no answer of a conversation is under way any more. */
export const ended = (conversation) => Promise.all(runningIn(conversation).map((id) => running.get(id).ended));

/**
 * Asks `model` to answer below `parent`; resolves when that is shown as under way. `begin`: text that the answer goes on from;
 * `group`: what answers that are shown side by side have in common.
 */
export async function answer(conversation, parent, model, { begin = "", group } = {}) {
  const fields = { model, group, content: begin, state: "running", received: 0, tokens: [] };
  const message = await conversation.add(parent, "assistant", fields);
  run(conversation, message, async (control) => {
    const asked = body(conversation.record, tree.path(conversation.messages, parent), model);
    if (begin) asked.messages.push({ role: "assistant", content: begin });
    const headers = { "x-request-id": message.id, "x-corral-keep-answer": "1" };
    await follow(conversation, message, lines("/api/chat", { ...asked, progress: true }, { signal: control.signal, headers }));
  });
  grown(message);
}

/** Goes on with the answers of a conversation that this page began before it was loaded again. */
export function resume(conversation) {
  for (const message of conversation.messages.values()) if (message.state === "running") goOn(conversation, message);
}

/** Reads along with the answers that another tab has begun. One of which nothing has come may not be at the server yet. */
export function readAlong(conversation) {
  for (const message of conversation.messages.values()) {
    if (message.state === "running" && message.received) goOn(conversation, message);
    grown(message); // by what the other tab kept of it
  }
}

function goOn(conversation, message) {
  if (!isRunning(message.id)) run(conversation, message, (control) => rest(conversation, message, control));
}

/** Runs an answer to its end, through lost connections. `message` is changed as it comes. */
function run(conversation, message, begin) {
  const control = new AbortController();
  conversation.writing.add(message.id);
  const ended = untilEnd(conversation, message, begin, control);
  running.set(message.id, { control, ended });
}

async function untilEnd(conversation, message, begin, control) {
  let problem;
  try {
    await begin(control);
  } catch (error) {
    problem = await again(conversation, message, control, error);
  }
  const isStopped = control.signal.aborted;
  const elsewhere = problem && !isStopped ? await conversation.keptOf(message) : null;
  if (elsewhere && elsewhere.state !== "running") Object.assign(message, elsewhere); // another tab has stopped it
  else end(message, problem, isStopped);
  conversation.writing.delete(message.id);
  await conversation.keep(message);
  running.delete(message.id);
  conversation.tellOthers();
  grown(message);
}

/** Tries to read on after the connection was lost; gives what is to be said when that fails. */
async function again(conversation, message, control, error) {
  for (const seconds of RETRIES) {
    if (!(error instanceof Unreachable) || control.signal.aborted || !message.received) break;
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    try {
      return void (await rest(conversation, message, control));
    } catch (next) {
      error = next;
    }
  }
  return error;
}

function rest(conversation, message, control) {
  return follow(conversation, message, lines(`/api/answers/${message.id}?after=${message.received}`, undefined, control));
}

async function follow(conversation, message, incoming) {
  let saved = performance.now();
  for await (const [line, bytes] of incoming) {
    const isFirst = !message.received;
    take(message, line);
    message.received += bytes;
    grown(message);
    if (isFirst) conversation.keep(message).then(() => conversation.tellOthers());
    if (performance.now() - saved > SAVED_EVERY) {
      saved = performance.now();
      conversation.keep(message);
    }
  }
  if (!message.stats) throw new ServerError(say("chat.cut"), 200);
}

function end(message, problem, isStopped) {
  delete message.waiting;
  message.state = isStopped ? "stopped" : problem ? "failed" : "done";
  if (!problem || isStopped) return;
  if (problem.status === 404 && message.received) message.error = say("chat.interrupted");
  else message.error = problem instanceof Unreachable ? say("unreachable") : problem.message;
}

function grown(message) {
  progress.dispatchEvent(new CustomEvent(message.id));
}

function take(message, line) {
  const said = line.message ?? {};
  message.waiting = line.progress;
  if (said.thinking) message.thinking = (message.thinking ?? "") + said.thinking;
  if (said.content) message.content += said.content;
  if (said.tool_calls) message.calls = [...(message.calls ?? []), ...said.tool_calls];
  if (line.logprobs) message.tokens.push(...line.logprobs);
  if (line.progress?.cached !== undefined) message.cached = line.progress.cached;
  if (line.done) message.stats = figures(line, message.cached);
}

/** The figures that are kept with an answer: tokens, and tokens a second. */
function figures(line, cached = 0) {
  const rate = (tokens, nanoseconds) => (nanoseconds ? (tokens * 1e9) / nanoseconds : 0);
  return {
    reason: line.done_reason,
    prompt: line.prompt_eval_count ?? 0,
    cached,
    promptRate: rate((line.prompt_eval_count ?? 0) - cached, line.prompt_eval_duration),
    written: line.eval_count ?? 0,
    rate: rate(line.eval_count ?? 0, line.eval_duration),
    seconds: (line.total_duration ?? 0) / 1e9,
    load: (line.load_duration ?? 0) / 1e9,
  };
}
