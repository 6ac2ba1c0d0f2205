// What the tests with JavaScript clients share: where the server is, and ir-tiny's golden chats.
// The server is given, not started here: IR_URL says where it is, IR_MODEL which model is asked (ir-tiny as a rule).
import { readFileSync } from "node:fs";

export const url = process.env.IR_URL?.replace(/\/$/, "");
if (!url) throw new Error("IR_URL must say where the server is");
export const model = process.env.IR_MODEL ?? "ir-tiny";

export const question = [{ role: "user", content: "What is the capital of France?" }];
export const answer = "The capital of France is Paris.";

// The gap between the two likeliest tokens from which on a 4-bit file agrees with the reference.
const CLEAR = 0.3;

const golden = JSON.parse(readFileSync(new URL("../../engine/models/ir-tiny/golden.json", import.meta.url)));

/**
 * Golden chats with tools that are clear of near-ties, each with the call that its answer makes, if it makes one. A call of
 * a tool that is not there, as this small model makes them, is held to one that is.
 */
export const toolChats = golden.chats
  .filter((chat) => chat.tools && chat.min_margin > CLEAR)
  .map((chat) => {
    const text = /^<tool_call>([^]*)<\/tool_call>$/.exec(chat.reply)?.[1];
    const call = text ? JSON.parse(text) : null;
    const names = chat.tools.map((tool) => tool.function.name);
    if (call && !names.includes(call.name)) call.name = names[0];
    return { ...chat, call };
  });

/** A tool that ir-tiny never saw, with arguments that only a grammar makes it give. */
export const tool = {
  type: "function",
  function: {
    name: "pick_color",
    description: "Picks",
    parameters: {
      type: "object",
      properties: { color: { type: "string", enum: ["red", "green", "blue"] }, count: { type: "integer" } },
      required: ["color", "count"],
    },
  },
};

/** Whether arguments are those of `tool`. */
export function fits(args) {
  const names = Object.keys(args).sort().join();
  return names === "color,count" && ["red", "green", "blue"].includes(args.color) && Number.isInteger(args.count);
}

/** Rejects where requests are still running after this time. */
export async function idle(seconds = 60) {
  for (const end = Date.now() + seconds * 1000; ; ) {
    const text = await (await fetch(`${url}/metrics`)).text();
    const running = /^llamacpp:requests_processing\S*\s+(\S+)/m.exec(text)?.[1];
    if (running === undefined) throw new Error("no gauge of running requests among the metrics");
    if (Number(running) === 0) return;
    if (Date.now() > end) throw new Error(`${running} requests still run`);
    await new Promise((wake) => setTimeout(wake, 100));
  }
}
