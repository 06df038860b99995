// ollama-js, and the AI SDK with the provider for Ollama.

import { embed, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { Ollama } from "ollama";
import { createOllama } from "ollama-ai-provider-v2";
import { z } from "zod";

const client = new Ollama({ host: process.env.URL });
const question = "What is the weather in Oslo?";
const messages = [{ role: "user", content: question }];
const options = { temperature: 0, num_predict: 12 };
const schema = z.object({ sky: z.enum(["clear", "grey"]), degrees: z.literal([3, 20]) });
const place = z.object({ city: z.enum(["Oslo", "Rome"]), days: z.literal([1, 2]) });

export async function js_models() {
  const { models } = await client.list();
  const shown = await client.show({ model: "chatter" });
  return { listed: models.map((model) => model.name), capabilities: shown.capabilities };
}

export async function js_chat() {
  const whole = await client.chat({ model: "chatter", messages, options });
  const deltas = [];
  for await (const part of await client.chat({ model: "chatter", messages, options, stream: true }))
    deltas.push(part.message.content);
  return { text: whole.message.content, finish: whole.done_reason, deltas };
}

export async function js_generate_left_early() {
  const parts = await client.generate({ model: "chatter", prompt: question, stream: true });
  for await (const part of parts) {
    parts.abort();
    break;
  }
  return (await client.generate({ model: "chatter", prompt: question, options })).response;
}

export async function js_tools() {
  const tools = [{ type: "function", function: { name: "get_weather", parameters: z.toJSONSchema(place) } }];
  const turns = [...messages];
  const calls = [];
  let answer;
  for (const tool_choice of ["required", "none"]) {
    const asked = { model: "chatter", messages: turns, tools, tool_choice };
    answer = await client.chat({ ...asked, options: { temperature: 0, num_predict: 60 } });
    turns.push(answer.message);
    for (const call of answer.message.tool_calls ?? []) {
      calls.push([call.function.name, call.function.arguments]);
      turns.push({ role: "tool", content: "clear, 3 C", tool_name: call.function.name });
    }
  }
  return { calls, answer: answer.message.content };
}

export async function js_parsed() {
  const format = z.toJSONSchema(schema);
  const answer = await client.chat({ model: "chatter", messages, format, options: { temperature: 0, num_predict: 60 } });
  return schema.parse(JSON.parse(answer.message.content));
}

export async function js_embed() {
  return (await client.embed({ model: "bert", input: ["the sky", "grass"] })).embeddings;
}

export async function js_errors() {
  const found = {};
  for (const [name, stream] of [["whole", false], ["streamed", true]]) {
    try {
      await client.chat({ model: "nope", messages, stream });
    } catch (error) {
      found[name] = [error.name, error.status_code, error.error];
    }
  }
  return found;
}

const provider = createOllama({ baseURL: `${process.env.URL}/api` });
const model = provider("chatter");
const limited = (num_predict) => ({ providerOptions: { ollama: { options: { num_predict } } } });
const given = { model, prompt: question, temperature: 0, maxRetries: 0, ...limited(60) };

export async function ai_chat() {
  const whole = await generateText({ ...given, ...limited(12) });
  const deltas = [];
  const parts = streamText({ ...given, ...limited(12) });
  for await (const delta of parts.textStream) deltas.push(delta);
  return { text: whole.text, deltas, usage: whole.usage.outputTokens, finish: await parts.finishReason };
}

export async function ai_tools() {
  const asked = [];
  const get_weather = tool({
    description: "The weather of a city",
    inputSchema: place,
    execute: async (input) => {
      asked.push(["get_weather", input]);
      return "clear, 3 C";
    },
  });
  const agent = await generateText({
    ...given,
    tools: { get_weather },
    stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
  });
  const toolChoice = { type: "tool", toolName: "get_weather" };
  const streamed = streamText({ ...given, tools: { get_weather }, toolChoice });
  const calls = (await streamed.toolCalls).map((call) => [call.toolName, call.input]);
  return { asked, steps: agent.steps.length, answer: agent.text, streamed: calls };
}

export async function ai_parsed() {
  return (await generateText({ ...given, output: Output.object({ schema }) })).output;
}

export async function ai_embed() {
  return (await embed({ model: provider.embedding("bert"), value: "the sky" })).embedding;
}

export async function ai_error() {
  try {
    await generateText({ ...given, model: provider("nope") });
  } catch (error) {
    return [error.name, error.statusCode, error.message];
  }
}
