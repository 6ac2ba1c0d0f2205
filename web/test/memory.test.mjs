// Memory: what a load takes beyond weights and cache, many loads one after the other, and files above 4 GiB. What the module
// holds and what it asks for is counted; the rest is measured on the browser's processes, as the system counts them.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { padded, sendZeros, zeros } from './gguf.mjs';
import { FULL, PLACES, ask, chats, goldenFile, goldenOf, open, processes, tinyFile, unwatchWorkers } from './harness.mjs';

const MB = 1e6;
/** What the module may hold beyond weights and cache: its memory never shrinks, so what it has is what it had at most. */
const MODULE = 40 * MB;
/** Bytes of the file that may be asked for and not have come: two parts. */
const ASKED = 2 * 4 * 2 ** 20;
/** With `IR_FULL`, on a machine of its own: what a load takes at its peak, the browser's own buffers and garbage included. */
const EXTRA = 64 * MB;

const big = zeros({ layers: 8, width: 1024, hidden: 4096, vocabulary: 32000 });
const size = big.head.length + big.zeros;

/** Bytes of the file that answers under way are to have, and the most there were. */
const asked = { now: 0, most: 0 };
function counted(request, response) {
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range) ?? [0, 0, size - 1];
  let bytes = to - from + 1;
  const end = () => { [asked.now, bytes] = [asked.now - bytes, 0]; };
  response.on('finish', end).on('close', end);
  // Reading the processes' memory keeps this one busy: ends of earlier answers that are waiting count first.
  setImmediate(() => {
    asked.most = Math.max(asked.most, asked.now += bytes);
    sendZeros(big)(request, response);
  });
}

let it;
before(async () => {
  it = await open({ routes: { '/zeros.gguf': counted }, args: ['--js-flags=--expose-gc'] });
  unwatchWorkers(it);
});
after(() => it.close());

/**
 * Bytes of memory of the test's own browser, shared ones counted once. Without pages of files: how much of the program's
 * own is counted here changes with the other browsers of the machine.
 */
function memory() {
  let sum = 0;
  for (const id of processes(it)) {
    try {
      const counts = readFileSync(`/proc/${id}/smaps_rollup`, 'utf8');
      for (const kind of ['Anon', 'Shmem']) sum += 1024 * Number(new RegExp(`^Pss_${kind}:\\s+(\\d+)`, 'm').exec(counts)[1]);
    } catch { /* it ended */ }
  }
  return sum;
}

/** Memory when the page's and its workers' garbage is collected and what ended is gone. */
async function settled() {
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  // A thread that waits for work answers nothing, and has no garbage.
  const collect = (place) => Promise.race([place.evaluate(() => globalThis.gc()).catch(() => {}), pause(1000)]);
  await Promise.all([it.page, ...it.page.workers()].map(collect));
  await pause(1500);
  return memory();
}

/** The most that `work` takes beyond what was there before. */
async function peak(work) {
  const start = memory();
  let most = start;
  const timer = setInterval(() => { most = Math.max(most, memory()); }, 25);
  try {
    const value = await work();
    most = Math.max(most, memory());
    return { value, bytes: most - start };
  } finally {
    clearInterval(timer);
  }
}

for (const device of ['cpu', 'gpu']) {
  test(`a load takes its weights and little more: ${device}`, async (t) => {
    const options = { device, threads: 1, cacheBytes: 4 * MB };
    // Once with a small model, so that code, shaders and the GPU's process are there before it is measured.
    await ask(it.page, '/models/ir-tiny.gguf', options, [{ tokens: [1], maxTokens: 1 }]);
    const start = await settled();
    const { value: held, bytes } = await peak(() => it.page.evaluate(async (options) => {
      const { Ir } = await import('/index.js');
      globalThis.held = await Ir.load('/zeros.gguf', { ...options, cache: false });
      return (await globalThis.held.stats()).memoryBytes;
    }, options));
    const stays = (await settled()) - start;
    await it.page.evaluate(() => globalThis.held.free());
    // What comes and goes from the file to the device, garbage and the browser's read-ahead with it, in whatever process,
    // follows the pace of all of them. Not in it is what a browser keeps as long as the model is there: compiled code, and of
    // Chromium's GPU process some 30 MB beside the buffers that it was asked for.
    const inModule = held - (device === 'cpu' ? size : 0);
    const passing = Math.max(0, bytes - stays);
    const figures = {
      'file': size, 'module beyond the weights': inModule, 'asked for at once': asked.most,
      'on its way at the peak': passing, 'browser with the model': stays,
    };
    t.diagnostic(`${device}: ${Object.entries(figures).map(([name, n]) => `${name} ${(n / MB).toFixed(1)} MB`).join(', ')}`);
    assert(bytes > size / 2, 'the weights were not seen: the measure is wrong');
    assert(inModule < MODULE, `${(inModule / MB).toFixed(1)} MB of the module beyond the weights`);
    assert(asked.most > 0 && asked.most <= ASKED, `${asked.most} bytes were asked for at once`);
    assert(passing < size / 2, `${(passing / MB).toFixed(1)} MB on the way: the file is held once more`);
    assert(!FULL || inModule + passing < EXTRA, `${((inModule + passing) / MB).toFixed(1)} MB beyond the weights`);
  });
}

test('50 loads one after the other do not grow memory', async (t) => {
  // On the GPU one step: a software one compiles its kernels anew for every load.
  const jobs = { cpu: [{ tokens: [1, 5], maxTokens: 2, ignoreEos: true }], gpu: [{ tokens: [1], maxTokens: 1 }] };
  const cycle = (device) => ask(it.page, '/models/ir-tiny.gguf', { device, threads: 2 }, jobs[device]);
  const after = {};
  // The browser's own stores, of code and of freed memory, fill in the first loads.
  const marks = FULL ? [5, 30, 55, 80] : [5, 20, 35, 50];
  for (let i = 0; i <= marks[3]; i++) {
    if (marks.includes(i)) after[i] = await settled();
    if (i < marks[3]) await cycle(i % 10 === 0 ? 'gpu' : 'cpu');
  }
  t.diagnostic(Object.entries(after).map(([n, bytes]) => `${(bytes / MB).toFixed(0)} MB after ${n} loads`).join(', '));
  assert.equal(it.page.workers().length, 0);
  // One model with its engine takes 16 MB: four lost ones would show, of thirty or fifty.
  const grown = after[marks[3]] - after[marks[1]];
  assert(grown < 60 * MB, `${(grown / MB).toFixed(0)} MB more`);
});

test('weights beyond 4 GiB of file arrive on the GPU', { timeout: 600_000 }, async (t) => {
  const { ids, greedy } = goldenOf('llama3');
  const { head, pad, tail } = padded(goldenFile('llama3'), 4608 * 2 ** 20);
  const started = Date.now();
  const found = await it.page.evaluate(async ({ head, pad, tail, ids, n, options }) => {
    const { Ir } = await import('/index.js');
    const zeros = new Uint8Array(16 << 20);
    const bytes = (async function* () {
      yield Uint8Array.from(head);
      for (let left = pad; left > 0; left -= zeros.length) yield zeros.subarray(0, Math.min(left, zeros.length));
      yield Uint8Array.from(tail);
    })();
    const ir = await Ir.load(bytes, { ...options, size: head.length + pad + tail.length });
    const out = [];
    for await (const { token } of ir.generate(ids, { temperature: 0, maxTokens: n, ignoreEos: true })) if (token !== undefined) out.push(token);
    const info = ir.info();
    ir.free();
    return { out, info };
  }, { head: [...head], pad, tail: [...tail], ids, n: 4, options: PLACES.GPU });
  t.diagnostic(`${((Date.now() - started) / 1000).toFixed(0)} s for ${(found.info.fileBytes / 2 ** 30).toFixed(2)} GiB`);
  assert(found.info.fileBytes > 2 ** 32);
  assert.deepEqual(found.out, greedy.slice(0, 4));
});

test('a long run keeps its memory', { skip: !FULL && 'only with IR_FULL=1' }, async (t) => {
  const [chat] = chats();
  const jobs = Array.from({ length: 200 }, () => ({ messages: chat.messages, temperature: 0 }));
  const before = (await ask(it.page, '/models/ir-tiny.gguf', PLACES['CPU, one thread'], jobs.slice(0, 5))).stats.memoryBytes;
  const { stats } = await ask(it.page, '/models/ir-tiny.gguf', PLACES['CPU, one thread'], jobs);
  t.diagnostic(`${before / MB} and ${stats.memoryBytes / MB} MB; the file has ${tinyFile().length / MB}`);
  assert(stats.memoryBytes - before < 16 * MB);
});
