// The npm package ollama against the server.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Ollama } from "ollama";
import { answer, fits, idle, model, question, tool, toolChats, url } from "./common.mjs";

const client = new Ollama({ host: url });
const options = { temperature: 0 };

test("a stream is the whole answer in pieces", async () => {
  const whole = await client.chat({ model, messages: question, options });
  assert.equal(whole.message.content, answer);
  let text = "";
  let last;
  for await (const part of await client.chat({ model, messages: question, options, stream: true })) {
    text += part.message.content;
    last = part;
  }
  assert.equal(text, answer);
  assert.equal(last.done, true);
  assert.equal(last.eval_count, whole.eval_count);
  const generated = await client.generate({ model, prompt: question[0].content, options });
  assert.equal(generated.response, answer);
});

for (const chat of toolChats) {
  test(`tools: ${chat.messages.at(-1).content}`, async () => {
    const { message } = await client.chat({ model, messages: chat.messages, tools: chat.tools, options });
    const calls = (message.tool_calls ?? []).map((c) => [c.function.name, c.function.arguments]);
    assert.deepEqual(calls, chat.call ? [[chat.call.name, chat.call.arguments]] : []);
    assert.equal(message.content, chat.call ? "" : chat.reply);
  });
}

test("a schema is kept to", async () => {
  const format = tool.function.parameters;
  const { response } = await client.generate({ model, prompt: "Hello!", format, options });
  assert.ok(fits(JSON.parse(response)), response);
});

test("embeddings", async () => {
  const { embeddings } = await client.embed({ model, input: ["a fox", "a drum"] });
  assert.equal(embeddings.length, 2);
  for (const vector of embeddings) {
    const length = vector.reduce((sum, v) => sum + v * v, 0);
    assert.ok(Math.abs(length - 1) < 1e-4, String(length));
  }
});

test("models", async () => {
  const { models } = await client.list();
  assert.ok(models.some((m) => m.model === model));
  const shown = await client.show({ model });
  assert.ok(shown.capabilities.includes("tools"));
  await client.generate({ model, prompt: "", keep_alive: "5m" });
  assert.ok((await client.ps()).models.some((m) => m.model === model));
});

test("errors", async () => {
  await assert.rejects(client.chat({ model: "nope", messages: question }), (e) => {
    return e.status_code === 404 && /model 'nope' not found/.test(e.message);
  });
  await assert.rejects(client.pull({ model: "nope" }), (e) => /nope/.test(e.message));
});

test("leaving a stream cancels it", async () => {
  const prompt = "Tell me a story.";
  for (let i = 0; i < 4; i++) {
    const stream = await client.generate({ model, prompt, raw: true, stream: true, options: { num_predict: 900 } });
    for await (const _ of stream) {
      stream.abort();
      break;
    }
  }
  await idle();
});
