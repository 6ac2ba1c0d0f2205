// The npm package openai against the server.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { answer, fits, idle, model, question, tool, toolChats, url } from "./common.mjs";

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const ask = (more) => client.chat.completions.create({ model, messages: question, temperature: 0, ...more });

test("a stream is the whole answer in pieces", async () => {
  const whole = await ask();
  assert.equal(whole.choices[0].message.content, answer);
  let text = "";
  let usage;
  for await (const chunk of await ask({ stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, answer);
  assert.equal(usage.total_tokens, whole.usage.total_tokens);
});

test("the package's own collector of a stream", async () => {
  const stream = client.chat.completions.stream({ model, messages: question, temperature: 0 });
  assert.equal(await stream.finalContent(), answer);
});

for (const chat of toolChats) {
  test(`tools: ${chat.messages.at(-1).content}`, async () => {
    const asked = { model, messages: chat.messages, tools: chat.tools, temperature: 0 };
    const whole = (await client.chat.completions.create(asked)).choices[0];
    const streamed = await client.chat.completions.stream(asked).finalMessage();
    for (const message of [whole.message, streamed]) {
      const calls = (message.tool_calls ?? []).map((c) => [c.function.name, JSON.parse(c.function.arguments)]);
      assert.deepEqual(calls, chat.call ? [[chat.call.name, chat.call.arguments]] : []);
      assert.equal(message.content ?? "", chat.call ? "" : chat.reply);
    }
    assert.equal(whole.finish_reason, chat.call ? "tool_calls" : "stop");
  });
}

test("tools are forced", async () => {
  for (const tool_choice of ["required", { type: "function", function: { name: "pick_color" } }]) {
    const whole = await ask({ tools: [tool], tool_choice });
    const [call] = whole.choices[0].message.tool_calls;
    assert.ok(fits(JSON.parse(call.function.arguments)), call.function.arguments);
  }
});

test("a schema is kept to", async () => {
  const json_schema = { name: "color", schema: tool.function.parameters, strict: true };
  const whole = await ask({ response_format: { type: "json_schema", json_schema } });
  assert.ok(fits(JSON.parse(whole.choices[0].message.content)));
});

test("embeddings, which the package asks for in base64", async () => {
  const { data } = await client.embeddings.create({ model, input: ["a fox", "a drum"] });
  assert.equal(data.length, 2);
  for (const { embedding } of data) {
    const length = embedding.reduce((sum, v) => sum + v * v, 0);
    assert.ok(Math.abs(length - 1) < 1e-4, String(length));
  }
});

test("responses, whole and streamed", async () => {
  const asked = { model, input: question[0].content, temperature: 0 };
  const whole = await client.responses.create(asked);
  assert.equal(whole.output_text, answer);
  const last = await client.responses.stream(asked).finalResponse();
  assert.equal(last.output_text, answer);
});

test("models and errors", async () => {
  const names = [];
  for await (const entry of client.models.list()) names.push(entry.id);
  assert.ok(names.includes(model));
  await assert.rejects(ask({ model: "nope" }), (e) => e instanceof OpenAI.NotFoundError && e.code === "model_not_found");
  await assert.rejects(ask({ n: 0 }), (e) => e instanceof OpenAI.BadRequestError && e.param === "n");
});

test("leaving a stream cancels it", async () => {
  for (let i = 0; i < 4; i++) {
    const stream = await ask({ stream: true, ignore_eos: true, max_tokens: 900 });
    for await (const _ of stream) break;
    stream.controller.abort();
  }
  await idle();
});
