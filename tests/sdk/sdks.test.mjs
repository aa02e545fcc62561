// The official Node SDKs, unmodified, against the gateway. `with_gateway.py` starts it and sets the environment.

import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const ask = [{ role: "user", content: "Hello" }];
const openai = new OpenAI({ maxRetries: 0 });
const claude = new Anthropic({ maxRetries: 0 });
const model = "gpt-6-luna";

test("openai answers a chat", async () => {
  const answer = await openai.chat.completions.create({ model, messages: ask });
  assert.match(answer.choices[0].message.content, /^This is the simulator's answer/);
});

test("openai streams a chat", async () => {
  let text = "";
  for await (const chunk of await openai.chat.completions.create({ model, messages: ask, stream: true })) {
    assert.equal(chunk.choices.length, 1);
    text += chunk.choices[0].delta.content ?? "";
  }
  assert.match(text, /^This is the simulator's answer/);
});

test("openai calls tools", async () => {
  const parameters = { type: "object", properties: { city: { type: "string" } } };
  const tools = [{ type: "function", function: { name: "weather", parameters } }];
  const answer = await openai.chat.completions.create({ model, messages: ask, tools });
  assert.equal(answer.choices[0].message.tool_calls[0].function.arguments, '{"city":"sample"}');
});

test("openai gives structured output", async () => {
  const schema = { type: "object", properties: { n: { type: "integer" } }, required: ["n"], additionalProperties: false };
  const response_format = { type: "json_schema", json_schema: { name: "n", schema, strict: true } };
  const answer = await openai.chat.completions.parse({ model, messages: ask, response_format });
  assert.deepEqual(JSON.parse(answer.choices[0].message.content), { n: 7 });
});

test("openai responses, whole and streamed", async () => {
  const answer = await openai.responses.create({ model, input: "Hello" });
  assert.match(answer.output_text, /^This is the simulator's answer/);
  const stream = openai.responses.stream({ model, input: "Hello" });
  assert.equal((await stream.finalResponse()).output_text, answer.output_text);
});

test("openai embeds", async () => {
  const answer = await openai.embeddings.create({ model: "text-embedding-3-small", input: "a" });
  assert.deepEqual(Array.from(answer.data[0].embedding), [0.5, 0.25, -1]);
});

test("openai errors are the SDK's own", async () => {
  const stranger = new OpenAI({ apiKey: "tg_nonsense", maxRetries: 0 });
  await assert.rejects(stranger.chat.completions.create({ model, messages: ask }), OpenAI.AuthenticationError);
  const failing = openai.chat.completions.create({ model, messages: ask, sim: { status: 400 } });
  await assert.rejects(failing, OpenAI.BadRequestError);
});

test("anthropic answers, streams and calls tools", async () => {
  const base = { model: "claude-haiku-4-5", max_tokens: 100, messages: ask };
  const answer = await claude.messages.create(base);
  assert.match(answer.content[0].text, /^This is the simulator's answer/);
  const final = await claude.messages.stream(base).finalMessage();
  assert.equal(final.content[0].text, answer.content[0].text);
  const input_schema = { type: "object", properties: { city: { type: "string" } } };
  const called = await claude.messages.create({ ...base, tools: [{ name: "weather", input_schema }] });
  assert.deepEqual(called.content[0].input, { city: "sample" });
});

test("anthropic errors are the SDK's own", async () => {
  const stranger = new Anthropic({ apiKey: "tg_nonsense", maxRetries: 0 });
  const asked = stranger.messages.create({ model: "claude-haiku-4-5", max_tokens: 1, messages: ask });
  await assert.rejects(asked, Anthropic.AuthenticationError);
});
