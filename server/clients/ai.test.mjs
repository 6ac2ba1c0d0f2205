// The AI SDK with each of its providers: two steps with a tool that runs here, and a turn that takes all of it back.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, jsonSchema, streamText, tool as toolOf } from "ai";
import { answer, fits, model, question, tool, url } from "./common.mjs";

const [apiKey, baseURL] = ["none", `${url}/v1`];
const openai = createOpenAI({ apiKey, baseURL });
const providers = {
  "openai, responses": openai.responses(model),
  "openai, chat": openai.chat(model),
  "openai-compatible": createOpenAICompatible({ name: "ir", apiKey, baseURL })(model),
  anthropic: createAnthropic({ apiKey, baseURL })(model),
};

/** The tool, and the arguments that it was called with. */
function picker() {
  const calls = [];
  const { name, description, parameters } = tool.function;
  const execute = async (args) => calls.push(args) && `${args.color} it is`;
  return { calls, tools: { [name]: toolOf({ description, inputSchema: jsonSchema(parameters), execute }) } };
}

const common = { temperature: 0, maxOutputTokens: 200, maxRetries: 0 };
// The first step must call the tool, the second one must not.
const steps = {
  ...common,
  toolChoice: "required",
  stopWhen: isStepCount(2),
  prepareStep: ({ stepNumber }) => (stepNumber > 0 ? { toolChoice: "none" } : {}),
};

for (const [name, asked] of Object.entries(providers)) {
  test(`${name}: text`, async () => {
    const { text, usage } = await generateText({ model: asked, messages: question, ...common });
    assert.equal(text, answer);
    assert.ok(usage.inputTokens > 0 && usage.outputTokens > 0, JSON.stringify(usage));
    const stream = streamText({ model: asked, messages: question, ...common });
    assert.equal(await stream.text, answer);
  });

  for (const ask of [generateText, streamText]) {
    test(`${name}: a tool and a second turn, ${ask.name}`, async () => {
      const { calls, tools } = picker();
      const turns = [{ role: "user", content: "Hello!" }];
      const first = await ask({ model: asked, messages: turns, tools, ...steps });
      assert.ok((await first.text).length > 0);
      assert.equal((await first.steps).length, 2);
      assert.equal(calls.length, 1);
      assert.ok(fits(calls[0]), JSON.stringify(calls));
      turns.push(...(await first.response).messages, { role: "user", content: "More" });
      const second = await ask({ model: asked, messages: turns, tools, ...common, toolChoice: "none" });
      assert.ok((await second.text).length > 0);
    });
  }
}
