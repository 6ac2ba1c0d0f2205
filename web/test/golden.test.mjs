// The golden answers, in the browser as natively: ir-tiny's chats and the greedy tokens of every golden file, on the GPU
// (a software one) and on the CPU with every build of the module. `IR_FULL=1` asks all chats on all of them.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { FULL, PLACES, ask, chats, families, goldenOf, open, unbuilt } from './harness.mjs';

/** Below this gap between the two best logits, f16 keys and values may choose the other: the rest then differs. */
const NEAR_TIE = 0.02;

let it;
before(async () => { it = await open(); });
after(() => it.close());

for (const [place, options] of Object.entries(PLACES)) {
  const skip = (options.threads === 2 && unbuilt('threads')) || (options.variant && unbuilt(options.variant));
  test(`ir-tiny's golden chats: ${place}`, { skip }, async (t) => {
    // A software GPU takes over a second of the processor for a token: the shortest answers there.
    const shortest = chats().sort((a, b) => a.reply_ids.length - b.reply_ids.length);
    const some = options.device === 'cpu' ? chats().slice(0, 8) : shortest.slice(0, options.allForms ? 1 : 2);
    const all = FULL ? chats() : some;
    const jobs = all.map(({ messages, tools = [] }) => ({ messages, tools, temperature: 0, maxTokens: 200 }));
    const { answers, info, notices } = await ask(it.page, '/models/ir-tiny.gguf', options, jobs);
    assert.equal(info.device.kind, options.device, notices.join('; '));
    all.forEach((chat, i) => assert.deepEqual(answers[i].ids, chat.reply_ids, `${JSON.stringify(chat.messages)}: ${answers[i].text}`));
    t.diagnostic(`${all.length} of ${chats().length} chats`);
  });

  test(`golden files: ${place}`, { skip: skip || (options.allForms && !FULL && 'only with IR_FULL=1') }, async (t) => {
    const some = FULL || options.device === 'cpu' ? families() : families().slice(0, 2);
    for (const family of some) {
      const { ids, greedy, greedy_margin: margins } = goldenOf(family);
      const job = { tokens: ids, temperature: 0, maxTokens: greedy.length, ignoreEos: true };
      const { answers } = await ask(it.page, `/golden/${family}.gguf`, options, [job]);
      const found = answers[0].ids;
      assert.equal(found.length, greedy.length, family);
      const at = greedy.findIndex((id, i) => id !== found[i]);
      assert(at < 0 || margins[at] < NEAR_TIE, `${family}: token ${at} is ${found[at]}, not ${greedy[at]} (margin ${margins[at]})`);
      t.diagnostic(`${family}: ${at < 0 ? 'all' : at} of ${greedy.length} tokens`);
    }
  });
}

const job = { messages: [{ role: 'user', content: 'Hello!' }], temperature: 0, maxTokens: 4 };

test('sampling on the GPU: the same seed gives the same answer', async () => {
  const sampled = { tokens: goldenOf('llama3').ids, maxTokens: 4, ignoreEos: true };
  const jobs = [
    { ...sampled, temperature: 0.9, topK: 40, topP: 0.9, seed: 7 }, { ...sampled, temperature: 0.9, topK: 40, topP: 0.9, seed: 7 },
    { ...sampled, temperature: 1.2, topK: 0, topP: 1, minP: 0, repeatPenalty: 1.2, seed: 1 }, { ...sampled, temperature: 0, logprobs: 2 },
  ];
  const { answers } = await ask(it.page, '/golden/llama3.gguf', PLACES.GPU, jobs);
  assert.deepEqual(answers[0].ids, answers[1].ids);
  for (const { ids, reason } of answers) assert.deepEqual([ids.length, reason], [4, 'length']);
});

test('threads are really in use', { skip: unbuilt('threads') }, async () => {
  const two = await ask(it.page, '/models/ir-tiny.gguf', { device: 'cpu', threads: 2 }, [job]);
  assert.match(two.info.device.name, /2 threads/);
  assert.match(two.info.device.build, /relaxed SIMD, threads/);
});

test('subgroups are really in use', async () => {
  const forms = await ask(it.page, '/golden/llama3.gguf', { device: 'gpu', allForms: true }, [{ tokens: [1, 2], maxTokens: 1 }]);
  assert.match(forms.info.device.forms, /subgroups/);
});

test('without isolation the CPU has one thread and says why', async () => {
  const alone = await open({ isolate: false });
  try {
    const job = { messages: [{ role: 'user', content: 'Hello!' }], temperature: 0 };
    const { answers, notices } = await ask(alone.page, '/models/ir-tiny.gguf', { device: 'auto' }, [job]);
    assert.deepEqual(answers[0].ids, chats().find((c) => c.messages[0].content === 'Hello!').reply_ids);
    assert(notices.some((n) => n.includes('not cross-origin isolated')), notices.join('; '));
    assert(notices.some((n) => n.includes('software')), notices.join('; '));
  } finally {
    await alone.close();
  }
});
