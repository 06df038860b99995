// Anthropic's own client: messages, streams, tools, structured output, counting, errors.

import Anthropic, { APIConnectionError, APIError } from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";

const client = new Anthropic({ baseURL: process.env.URL, apiKey: "corral", timeout: 120_000 });
const messages = [{ role: "user", content: "What is the weather in Oslo?" }];
const given = { model: "chatter", system: "Be brief.", messages, temperature: 0 };
const tool = {
  name: "get_weather",
  description: "The weather of a city",
  input_schema: {
    type: "object",
    properties: { city: { type: "string", enum: ["Oslo", "Rome"] }, days: { type: "integer", enum: [1, 2] } },
    required: ["city", "days"],
  },
};
const format = zodOutputFormat(z.object({ sky: z.enum(["clear", "grey"]), degrees: z.literal([3, 20]) }));

const usage = ({ usage }) => [usage.input_tokens, usage.output_tokens];

export async function chat() {
  const answer = await client.messages.create({ ...given, max_tokens: 12 });
  const [block] = answer.content;
  return { text: block.text, role: answer.role, stop: answer.stop_reason, usage: usage(answer) };
}

export async function stream() {
  const deltas = [];
  const parts = client.messages.stream({ ...given, max_tokens: 12 }).on("text", (text) => deltas.push(text));
  const answer = await parts.finalMessage();
  const [block] = answer.content;
  return { deltas, text: block.text, stop: answer.stop_reason, usage: usage(answer) };
}

export async function stream_of_events_left_early() {
  let first;
  for await (const event of await client.messages.create({ ...given, max_tokens: 500, stream: true })) {
    first = event.type;
    break;
  }
  return { first, next: (await chat()).text };
}

export async function counted() {
  return (await client.messages.countTokens({ model: "chatter", system: "Be brief.", messages })).input_tokens;
}

async function agent(model) {
  const turns = [...messages];
  const calls = [];
  let answer;
  const choices = [[{ type: "tool", name: "get_weather" }, 200], [{ type: "none" }, 12]];
  for (const [tool_choice, max_tokens] of choices) {
    const asked = { model, messages: turns, tools: [tool], tool_choice, temperature: 0, max_tokens };
    answer = await client.messages.create(asked);
    const used = answer.content.filter((block) => block.type === "tool_use");
    for (const block of used) calls.push([block.name, block.input]);
    const results = used.map((block) => ({ type: "tool_result", tool_use_id: block.id, content: "clear, 3 C" }));
    turns.push({ role: "assistant", content: answer.content }, { role: "user", content: results });
  }
  return { calls, stop: answer.stop_reason, answer: answer.content.map((block) => block.text).join("") };
}

export const tools = () => agent("chatter");

export const tools_native = () => agent("native");

export async function tools_streamed() {
  let pieces = "";
  const asked = { ...given, tools: [tool], tool_choice: { type: "any" }, max_tokens: 60 };
  const parts = client.messages.stream(asked).on("inputJson", (piece) => (pieces += piece));
  const answer = await parts.finalMessage();
  const [block] = answer.content.filter((block) => block.type === "tool_use");
  return { call: [block.name, block.input], pieces, stop: answer.stop_reason };
}

export async function parsed() {
  const answer = await client.messages.parse({ ...given, max_tokens: 60, output_config: { format } });
  return answer.parsed_output;
}

export async function parsed_stream() {
  const parts = client.messages.stream({ ...given, max_tokens: 60, output_config: { format } });
  return (await parts.finalMessage()).parsed_output;
}

export async function errors() {
  const found = {};
  const cases = {
    unknown: { model: "nope" },
    empty: { messages: [] },
    no_chat: { model: "bert" },
    streamed: { model: "nope", stream: true },
  };
  for (const [name, changed] of Object.entries(cases)) {
    try {
      await client.messages.create({ ...given, max_tokens: 4, ...changed });
    } catch (error) {
      if (!(error instanceof APIError)) throw error;
      found[name] = [error.constructor.name, error.status, error.error.error.message];
    }
  }
  return found;
}

export async function no_server() {
  const elsewhere = new Anthropic({ baseURL: "http://127.0.0.1:9", apiKey: "x", maxRetries: 0 });
  try {
    await elsewhere.messages.create({ ...given, max_tokens: 1 });
  } catch (error) {
    return error instanceof APIConnectionError ? error.constructor.name : String(error);
  }
}
