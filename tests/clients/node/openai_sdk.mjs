// OpenAI's own client: chat, streams, tools, structured output, embeddings, transcriptions, responses, errors.

import OpenAI, { APIConnectionError, APIError, toFile } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: `${process.env.URL}/v1`, apiKey: "corral", timeout: 120_000 });
const messages = [{ role: "user", content: "What is the weather in Oslo?" }];
const brief = { model: "chatter", temperature: 0, max_tokens: 12 };
const parameters = {
  type: "object",
  properties: { city: { type: "string", enum: ["Oslo", "Rome"] }, days: { type: "integer", enum: [1, 2] } },
  required: ["city", "days"],
  additionalProperties: false,
};
const tool = { type: "function", function: { name: "get_weather", strict: true, parameters } };
const forced = { type: "function", function: { name: "get_weather" } };
const Weather = z.object({ sky: z.enum(["clear", "grey"]), degrees: z.literal([3, 20]) });

const usage = ({ usage }) => [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens];

export async function models() {
  const listed = [];
  for await (const model of client.models.list()) listed.push(model.id);
  return { listed, retrieved: (await client.models.retrieve("chatter")).id };
}

export async function chat() {
  const answer = await client.chat.completions.create({ messages, ...brief });
  const [{ message, finish_reason }] = answer.choices;
  return {
    text: message.content,
    role: message.role,
    finish: finish_reason,
    refusal: message.refusal ?? null,
    usage: usage(answer),
  };
}

export async function stream() {
  const parts = client.chat.completions.stream({ messages, ...brief, stream_options: { include_usage: true } });
  const deltas = [];
  parts.on("content", (delta) => deltas.push(delta));
  const answer = await parts.finalChatCompletion();
  const [{ message, finish_reason }] = answer.choices;
  return { deltas, text: message.content, role: message.role, finish: finish_reason, usage: usage(answer) };
}

export async function stream_of_chunks_left_early() {
  const chunks = await client.chat.completions.create({ messages, model: "chatter", temperature: 0, stream: true });
  let first;
  for await (const chunk of chunks) {
    first = chunk.choices[0].delta;
    break;
  }
  return { role: first.role, next: (await chat()).text };
}

async function agent(model) {
  const turns = [...messages];
  const calls = [];
  let given;
  for (const [tool_choice, max_tokens] of [[forced, 200], ["none", 12]]) {
    const answer = await client.chat.completions.create({
      ...{ model, messages: turns, tools: [tool], tool_choice, temperature: 0, max_tokens },
    });
    given = answer.choices[0];
    turns.push(given.message);
    for (const call of given.message.tool_calls ?? []) {
      calls.push([call.type, call.function.name, JSON.parse(call.function.arguments)]);
      turns.push({ role: "tool", tool_call_id: call.id, content: "clear, 3 C" });
    }
  }
  return { calls, finish: given.finish_reason, answer: given.message.content };
}

export const tools = () => agent("chatter");

export const tools_native = () => agent("native");

export async function tools_streamed() {
  const parts = client.chat.completions.stream({
    ...{ model: "chatter", messages, tools: [tool], tool_choice: "required", temperature: 0, max_tokens: 60 },
  });
  const events = [];
  parts.on("tool_calls.function.arguments.delta", () => events.push("tool_calls.function.arguments.delta"));
  parts.on("tool_calls.function.arguments.done", () => events.push("tool_calls.function.arguments.done"));
  const [{ message, finish_reason }] = (await parts.finalChatCompletion()).choices;
  const [call] = message.tool_calls;
  return { call: [call.function.name, call.function.parsed_arguments], finish: finish_reason, events };
}

export async function parsed() {
  const answer = await client.chat.completions.parse({
    ...{ model: "chatter", messages, temperature: 0, max_tokens: 60 },
    response_format: zodResponseFormat(Weather, "weather"),
  });
  return answer.choices[0].message.parsed;
}

export async function json_mode() {
  const answer = await client.chat.completions.create({
    ...{ model: "chatter", messages, temperature: 0, max_tokens: 200, response_format: { type: "json_object" } },
  });
  return JSON.parse(answer.choices[0].message.content);
}

export async function completions() {
  const prompt = "Once upon a";
  const answer = await client.completions.create({ prompt, ...brief });
  let streamed = "";
  for await (const part of await client.completions.create({ prompt, ...brief, stream: true }))
    streamed += part.choices[0].text;
  return { text: answer.choices[0].text, streamed };
}

export async function embeddings() {
  const input = ["the sky", "grass"];
  const packed = await client.embeddings.create({ model: "bert", input });
  const plain = await client.embeddings.create({ model: "bert", input, encoding_format: "float" });
  return {
    packed: packed.data.map((one) => one.embedding),
    plain: plain.data.map((one) => one.embedding),
    tokens: packed.usage.prompt_tokens,
  };
}

export async function responses() {
  const given = { model: "chatter", temperature: 0, max_output_tokens: 16 };
  const first = await client.responses.create({ ...given, instructions: "Be brief.", input: "Name a colour." });
  const second = await client.responses.create({ ...given, previous_response_id: first.id, input: "Another." });
  return {
    text: first.output_text,
    statuses: [first.status, second.status],
    second: second.output_text,
    previous: second.previous_response_id === first.id,
    input_tokens: [first.usage.input_tokens, second.usage.input_tokens],
  };
}

export async function responses_streamed() {
  const parts = client.responses.stream({
    ...{ model: "chatter", instructions: "Be brief.", input: "Name a colour.", temperature: 0 },
  });
  const events = [];
  for await (const event of parts) events.push(event);
  const final = await parts.finalResponse();
  const deltas = events.filter((event) => event.type === "response.output_text.delta");
  return {
    deltas: deltas.map((event) => event.delta).join(""),
    text: final.output_text,
    status: final.status,
    numbers: events.every((event, number) => event.sequence_number === number),
  };
}

export async function responses_tools() {
  const tools = [{ type: "function", name: "get_weather", strict: true, parameters }];
  const given = { model: "chatter", tools, temperature: 0 };
  const tool_choice = { type: "function", name: "get_weather" };
  const called = await client.responses.create({ ...given, input: messages[0].content, tool_choice });
  const [call] = called.output.filter((item) => item.type === "function_call");
  const answer = await client.responses.create({
    ...given,
    input: [{ type: "function_call_output", call_id: call.call_id, output: "clear, 3 C" }],
    previous_response_id: called.id,
    tool_choice: "none",
    max_output_tokens: 16,
  });
  return { call: [call.name, JSON.parse(call.arguments)], answer: answer.output_text };
}

export async function responses_agent() {
  const tool = { type: "function", name: "get_weather", strict: true, parameters };
  const space = { type: "namespace", name: "weather", description: "The weather", tools: [tool] };
  const input = [...messages];
  const calls = [];
  let answer;
  for (const [tool_choice, max_output_tokens] of [["required", 200], ["none", 16]]) {
    const asked = { model: "chatter", input, tools: [space], tool_choice, temperature: 0, max_output_tokens };
    answer = await client.responses.create(asked);
    input.push(...answer.output);
    for (const call of answer.output.filter((item) => item.type === "function_call")) {
      calls.push([call.namespace, call.name, JSON.parse(call.arguments)]);
      input.push({ type: "function_call_output", call_id: call.call_id, output: "clear, 3 C" });
    }
  }
  return { calls, answer: answer.output_text };
}

export async function responses_tools_streamed() {
  const tools = [{ type: "function", name: "tell", strict: true, parameters: z.toJSONSchema(Weather) }];
  const parts = client.responses.stream({
    ...{ model: "chatter", input: "Weather?", tools, tool_choice: "required", temperature: 0 },
  });
  const events = [];
  for await (const event of parts) events.push(event.type);
  const [call] = (await parts.finalResponse()).output.filter((item) => item.type === "function_call");
  return { call: [call.name, JSON.parse(call.arguments)], events };
}

export async function responses_parsed() {
  const answer = await client.responses.parse({
    ...{ model: "chatter", input: "Weather?", temperature: 0, text: { format: zodTextFormat(Weather, "weather") } },
  });
  return answer.output_parsed;
}

export async function transcriptions() {
  const sound = async () => ({ file: await toFile(tone(), "speech.wav"), model: "hears", options: '{"num_predict": 5}' });
  const create = async (more) => client.audio.transcriptions.create({ ...(await sound()), language: "en", ...more });
  const whole = await create({ include: ["logprobs"], response_format: "json" });
  const text = await create({ response_format: "text" });
  const deltas = [];
  let done;
  for await (const event of await create({ stream: true })) {
    if (event.type === "transcript.text.delta") deltas.push(event.delta);
    else done = event;
  }
  const { type, input_tokens, output_tokens, total_tokens } = whole.usage;
  const found = {
    text: whole.text,
    tokens: whole.logprobs.map((one) => one.token).join(""),
    usage: [type, input_tokens, output_tokens, total_tokens],
    as_text: text,
    deltas,
    done: [done.type, done.text, done.usage.output_tokens],
  };
  const cases = {
    deaf: { model: "chatter" },
    times: { response_format: "verbose_json" },
    kind: { file: await toFile(Buffer.concat([Buffer.from("OggS"), Buffer.alloc(60)]), "speech.ogg") },
    streamed: { model: "nope", stream: true },
  };
  for (const [name, given] of Object.entries(cases)) {
    try {
      await create(given);
    } catch (error) {
      if (!(error instanceof APIError)) throw error;
      found[name] = [error.constructor.name, error.status, error.error.message];
    }
  }
  return found;
}

/** A second of a tone, as a WAV. */
function tone() {
  const [samples, rate] = [16000, 16000];
  const file = Buffer.alloc(44 + 2 * samples);
  file.write("RIFF", 0);
  file.writeUInt32LE(36 + 2 * samples, 4);
  file.write("WAVEfmt ", 8);
  file.writeUInt32LE(16, 16);
  file.writeUInt16LE(1, 20);
  file.writeUInt16LE(1, 22);
  file.writeUInt32LE(rate, 24);
  file.writeUInt32LE(2 * rate, 28);
  file.writeUInt16LE(2, 32);
  file.writeUInt16LE(16, 34);
  file.write("data", 36);
  file.writeUInt32LE(2 * samples, 40);
  for (let n = 0; n < samples; n++) file.writeInt16LE(Math.trunc(20000 * Math.sin(n / 6)), 44 + 2 * n);
  return file;
}

export async function errors() {
  const found = {};
  const cases = {
    unknown: { model: "nope", messages },
    empty: { model: "chatter", messages: [] },
    no_chat: { model: "bert", messages },
    streamed: { model: "nope", messages, stream: true },
  };
  for (const [name, given] of Object.entries(cases)) {
    try {
      await client.chat.completions.create(given);
    } catch (error) {
      if (!(error instanceof APIError)) throw error;
      found[name] = [error.constructor.name, error.status, error.error.message];
    }
  }
  return found;
}

export async function no_server() {
  try {
    await new OpenAI({ baseURL: "http://127.0.0.1:9/v1", apiKey: "x", maxRetries: 0 }).models.list();
  } catch (error) {
    return error instanceof APIConnectionError ? error.constructor.name : String(error);
  }
}
