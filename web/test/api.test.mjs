// The JavaScript API: every source, every way of ending, errors with codes and sentences, the cache, broken downloads.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { after, before, beforeEach, test } from 'node:test';
import { sendRange } from '../serve.mjs';
import { PART } from '../js/source.js';
import { padded, sendZeros, zeros } from './gguf.mjs';
import { ask, built, chats, loadFailure, open, tinyFile, unbuilt } from './harness.mjs';

const file = tinyFile();
const [chat] = chats();
const job = { messages: chat.messages, temperature: 0 };
/** What the server of the test does with `/model.gguf`: set anew by each test. */
const server = { cut: 0, ranges: true, etag: '"1"', drip: 0, until: Infinity, status: 0, wrong: 0, busy: false, bytes: file, seen: [] };

function model(request, response) {
  const { cut, ranges, etag, drip, until, status, bytes, seen } = server;
  seen.push(request.headers.range ?? 'whole');
  if (status) return response.writeHead(status).end('no');
  if (server.busy && seen.length === 2) return response.writeHead(503).end('later');
  response.setHeader('ETag', etag);
  if (!ranges) delete request.headers.range;
  if (server.wrong) request.headers.range = 'bytes=1000-';
  const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const parts = function* (start, end) {
    for (let at = start; at <= end; at += 65536) yield bytes.subarray(at, Math.min(at + 65536, end + 1));
  };
  sendRange(request, response, bytes.length, (start, end) => {
    if (cut > 0) {
      server.cut--;
      setTimeout(() => response.destroy(), 60);
      return Readable.from(parts(start, Math.min(end, from + 400_000)));
    }
    if (!drip && until > end) return Readable.from(parts(start, end));
    return Readable.from((async function* () {
      for (let at = start, n; at <= end; at += n) {
        n = at < until ? 65536 : 1024;
        yield bytes.subarray(at, Math.min(at + n, end + 1));
        await new Promise((resolve) => setTimeout(resolve, at < until ? drip : 50));
      }
    })());
  });
}

/** A model whose tokens take longer than a message to its worker. */
const slow = zeros({ layers: 8, width: 1024, hidden: 4096, vocabulary: 32000 });
/** Whether the builds with relaxed SIMD are to say that they compute wrongly here. */
let faulty = false;

function glue(name) {
  return (_, response) => {
    const text = built(`wasm/${name}`).toString();
    const exact = 'export function exact() {';
    assert(text.includes(exact));
    response.writeHead(200, { 'Content-Type': 'text/javascript' });
    response.end(faulty ? text.replace(exact, `${exact} return false;`) : text);
  };
}

let it;
before(async () => {
  const glues = ['ir_relaxed.js', 'ir_threads.js'].map((name) => [`/wasm/${name}`, glue(name)]);
  it = await open({ routes: { '/model.gguf': model, '/slow.gguf': sendZeros(slow), ...Object.fromEntries(glues) } });
});
after(() => it.close());
beforeEach(() => {
  Object.assign(server, { cut: 0, ranges: true, etag: '"1"', drip: 0, until: Infinity, status: 0, wrong: 0, busy: false, bytes: file, seen: [] });
  return it.page.evaluate(async () => (await import('/index.js')).Ir.cache.clear());
});

test('every source gives the same model', async () => {
  const texts = await it.page.evaluate(async (job) => {
    const { Ir } = await import('/index.js');
    const bytes = new Uint8Array(await (await fetch('/models/ir-tiny.gguf')).arrayBuffer());
    const pieces = async function* (step) {
      for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step);
    };
    const dir = await navigator.storage.getDirectory();
    const handle = await dir.getFileHandle('own.gguf', { create: true });
    const out = await handle.createWritable();
    await out.write(bytes);
    await out.close();
    const size = bytes.length;
    const sources = {
      file: [new File([bytes], 'tiny.gguf')],
      address: ['/model.gguf', { cache: false }],
      'URL object': [new URL('/model.gguf', location.href), { cache: true }],
      handle: [handle],
      'async iterable': [pieces(100_003), { size }],
      iterable: [[bytes.slice(0, 7).buffer, bytes.subarray(7)], { size }],
      stream: [new Blob([bytes]).stream(), { size }],
      cached: [null],
    };
    const texts = {};
    for (const [name, [source, options]] of Object.entries(sources)) {
      const from = source ?? (await Ir.cache.list())[0];
      const ir = await Ir.load(from, { device: 'cpu', ...options });
      texts[name] = await ir.chat(job.messages, { temperature: 0 }).text();
      ir.free();
    }
    return texts;
  }, job);
  for (const [name, text] of Object.entries(texts)) assert.equal(text, chat.reply, name);
  assert.equal(Object.keys(texts).length, 8);
});

test('tokens, options and figures', async () => {
  const found = await it.page.evaluate(async () => {
    const { Ir } = await import('/index.js');
    const ir = await Ir.load('/models/ir-tiny.gguf', { device: 'cpu', cache: false, contextLength: 128 });
    const ids = await ir.tokenize('The fox, 12 drums.<|im_end|>');
    const plain = await ir.tokenize('<|im_end|>', { parseSpecial: false });
    const text = await ir.detokenize(ids, { special: true });
    const seeded = () => ir.generate('Once upon a time', { seed: 7, temperature: 1, maxTokens: 12 }).text();
    const same = [await seeded(), await seeded()];
    const probs = [];
    for await (const p of ir.generate('Once', { logprobs: 2, temperature: 0, maxTokens: 2 })) if (p.logprobs) probs.push(p.logprobs);
    const full = await ir.generate('Once upon a time', { temperature: 0, ignoreEos: true }).finished;
    const both = [ir.generate('a', { maxTokens: 3, ignoreEos: true }), ir.generate('b', { maxTokens: 4, ignoreEos: true })];
    const counts = (await Promise.all(both.map((a) => a.finished))).map((f) => f.usage.completionTokens);
    const errors = [];
    for (const options of [{ topP: 7 }, { topp: 1 }, { stop: [''] }]) await ir.generate('a', options).text().catch((e) => errors.push(e.code));
    await ir.detokenize([99999]).catch((e) => errors.push(e.code));
    const [info, stats] = [ir.info(), await ir.stats()];
    ir.free();
    return { ids: [...ids], plain: plain.length, text, same, probs, full, counts, errors, info, stats };
  });
  assert.equal(found.text, 'The fox, 12 drums.<|im_end|>');
  assert(found.ids.includes(2) && found.plain > 1);
  assert.equal(found.same[0], found.same[1]);
  assert.equal(found.probs.length, 2);
  assert.equal(found.probs[0].chosen.id, found.probs[0].top[0].id);
  assert(found.probs[0].chosen.logprob <= 0 && found.probs[0].top[1].logprob <= found.probs[0].chosen.logprob);
  assert.equal(found.full.reason, 'length');
  assert.equal(found.full.usage.promptTokens + found.full.usage.completionTokens, 128);
  assert.deepEqual(found.counts, [3, 4]);
  assert.deepEqual(found.errors, ['request', 'request', 'request', 'request']);
  assert.equal(found.info.contextLength, 128);
  assert(found.stats.generatedTokensPerSecond > 0 && found.stats.promptTokensPerSecond > 0 && found.stats.memoryBytes > file.length);
});

test('what is no model is refused with a sentence', async () => {
  const cases = [
    ['/nothing.gguf', {}, 'http', /404/],
    ['/index.js', {}, 'format', /gguf/i],
    [[...Buffer.from('this is a text file and no model at all, said the fox')], {}, 'format', /gguf/i],
    [[], {}, 'format', /./],
    [[...file.subarray(0, 700_000)], {}, 'format', /cut short|missing/],
    [[...file.subarray(0, 1000)], {}, 'format', /./],
    ['ftp://127.0.0.1/a.gguf', {}, 'request', /https/],
    ['http://', {}, 'request', /address/],
    ['/models/ir-tiny.gguf', { sha256: '0'.repeat(64) }, 'integrity', /SHA-256/],
    ['/models/ir-tiny.gguf', { sha256: 'no' }, 'request', /64/],
    ['/models/ir-tiny.gguf', { size: 5 }, 'integrity', /should have 5/],
    ['/models/ir-tiny.gguf', { device: 'tpu' }, 'request', /"auto"/],
    ['/models/ir-tiny.gguf', { contextlength: 5 }, 'request', /contextlength/],
    ['/models/ir-tiny.gguf', { contextLength: 1 }, 'limit', /two tokens/],
  ];
  for (const [source, options, code, sentence] of cases) {
    const error = await loadFailure(it.page, source, options);
    const what = `${String(source).slice(0, 40)} ${JSON.stringify(options)}: ${JSON.stringify(error)}`;
    assert.equal(error?.code, code, what);
    assert.match(error.message, sentence, what);
    assert(error.typed && error.name === 'IrError', what);
  }
  const right = createHash('sha256').update(file).digest('hex');
  assert.equal(await loadFailure(it.page, '/models/ir-tiny.gguf', { sha256: right.toUpperCase() }), null);
});

test('a file too long for the CPU is refused before it is read', async () => {
  const error = await it.page.evaluate(async () => {
    const { Ir } = await import('/index.js');
    let read = 0;
    const bytes = (async function* () { read++; yield new Uint8Array(1024); })();
    return Ir.load(bytes, { device: 'cpu', size: 5 * 2 ** 30 }).then(() => null, (e) => ({ code: e.code, message: e.message, read }));
  });
  assert.equal(error.code, 'limit');
  assert.match(error.message, /5\.0 GiB.*WebGPU/);
  assert.equal(error.read, 0);
});

test('a broken download goes on where it broke off', async () => {
  server.cut = 3;
  const { answers } = await ask(it.page, '/model.gguf', { device: 'cpu' }, [job]);
  assert.equal(answers[0].text, chat.reply);
  assert.equal(server.seen.length, 4, server.seen.join());
  const starts = server.seen.map((range) => Number(/=(\d+)-/.exec(range)[1]));
  assert(starts[1] > 0 && starts[3] > starts[1], starts.join());
});

test('a long file comes in parts, broken or not, and only as many as are taken', async () => {
  const { head, pad, tail } = padded(file, 3 * PART);
  server.bytes = Buffer.concat([head, Buffer.alloc(pad), tail]);
  Object.assign(server, { cut: 2, busy: true });
  const { answers } = await ask(it.page, '/model.gguf', { device: 'cpu' }, [job]);
  assert.equal(answers[0].text, chat.reply);
  const asked = server.seen.map((range) => /=(\d+)-(\d+)$/.exec(range).slice(1).map(Number));
  assert(asked.every(([from, to]) => to - from === PART - 1), server.seen.join());
  assert(asked.some(([from]) => from > 3 * PART), server.seen.join());
  // Who is slow to take the first part has the server send two.
  server.seen = [];
  await it.page.evaluate(async (PART) => {
    const { UrlSource } = await import('/source.js');
    const source = new UrlSource(new URL('/model.gguf', location.href).href);
    await source.open();
    const chunks = source.chunks();
    let taken = 0;
    while (taken < PART / 2) {
      taken += (await chunks.next()).value.length;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await chunks.return();
  }, PART);
  assert.equal(server.seen.length, 2, server.seen.join());
});

test('a long file that changes between two parts is refused', async () => {
  const { head, pad, tail } = padded(file, 3 * PART);
  Object.assign(server, { bytes: Buffer.concat([head, Buffer.alloc(pad), tail]), drip: 5 });
  const load = loadFailure(it.page, '/model.gguf');
  while (server.seen.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  server.etag = '"2"';
  assert.equal((await load).code, 'integrity');
});

test('a server that sends another part than was asked for is refused', async () => {
  server.wrong = 1;
  const { code, message } = await loadFailure(it.page, '/model.gguf');
  assert.deepEqual([code, /another part/.test(message)], ['http', true]);
});

test('a server without ranges sends all again, and it is not taken twice', async () => {
  Object.assign(server, { cut: 1, ranges: false });
  const { answers } = await ask(it.page, '/model.gguf', { device: 'cpu' }, [job]);
  assert.equal(answers[0].text, chat.reply);
});

test('a file that changes while it loads is refused', async () => {
  server.cut = 1;
  const load = loadFailure(it.page, '/model.gguf');
  while (server.seen.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  server.etag = '"2"';
  assert.equal((await load).code, 'integrity');
});

test('the second load reads the cache; entries are listed and deleted', async () => {
  const options = { device: 'cpu', cache: true };
  await ask(it.page, '/model.gguf', options, [job]);
  const requests = server.seen.length;
  server.status = 500;
  const { answers } = await ask(it.page, '/model.gguf', options, [job]);
  assert.equal(answers[0].text, chat.reply);
  assert.equal(server.seen.length, requests);
  const found = await it.page.evaluate(async () => {
    const { cache } = (await import('/index.js')).Ir;
    const before = await cache.list();
    const gone = await cache.delete(before[0].key);
    return { before, gone, after: await cache.list(), twice: await cache.delete(before[0].key) };
  });
  assert.deepEqual([found.before.length, found.before[0].size, found.before[0].complete], [1, file.length, true]);
  assert.deepEqual([found.gone, found.after.length, found.twice], [true, 0, false]);
});

test('a load that was aborted is gone on with later, from the cache and then by range', async () => {
  server.until = 1_200_000; // what is behind it takes longer than anybody waits
  const aborted = await it.page.evaluate(async () => {
    const { Ir } = await import('/index.js');
    const control = new AbortController();
    const onProgress = ({ loaded }) => loaded > 600_000 && control.abort();
    const error = await Ir.load('/model.gguf', { device: 'cpu', signal: control.signal, onProgress }).catch((e) => e);
    for (let i = 0; i < 40 && !(await Ir.cache.list())[0]?.stored; i++) await new Promise((r) => setTimeout(r, 50));
    return { name: error.name, entries: await Ir.cache.list() };
  });
  assert.equal(aborted.name, 'AbortError');
  const [entry] = aborted.entries;
  assert(entry.stored > 500_000 && !entry.complete, JSON.stringify(entry));
  Object.assign(server, { until: Infinity, seen: [] });
  const { answers } = await ask(it.page, '/model.gguf', { device: 'cpu', cache: true }, [job]);
  assert.equal(answers[0].text, chat.reply);
  assert.deepEqual(server.seen, [`bytes=${entry.stored}-${entry.stored + PART - 1}`]);
});

test('no room in the storage, or no storage: memory only, and a notice', async () => {
  const cdp = await it.context.newCDPSession(it.page);
  await cdp.send('Storage.overrideQuotaForOrigin', { origin: new URL(it.url).origin, quotaSize: 1_000_000 });
  const { answers, notices } = await ask(it.page, '/model.gguf', { device: 'cpu', cache: true }, [job]);
  await cdp.send('Storage.overrideQuotaForOrigin', { origin: new URL(it.url).origin });
  assert.equal(answers[0].text, chat.reply);
  assert(notices.some((n) => /^memory-only: .*in memory only: there is no room/.test(n)), notices.join('; '));
  const refused = await it.page.evaluate(async () => {
    const { Ir } = await import('/index.js');
    const notices = [];
    const createWorker = () => {
      const script = `StorageManager.prototype.getDirectory = async () => { throw new DOMException('no', 'SecurityError'); };
        await import(${JSON.stringify(new URL('/worker.js', location.href).href)}); postMessage('up');`;
      return new Worker(URL.createObjectURL(new Blob([`const held = []; self.onmessage = (e) => held.push(e); ${script} for (const e of held) self.onmessage(e);`], { type: 'text/javascript' })), { type: 'module' });
    };
    (await Ir.load('/model.gguf', { device: 'cpu', createWorker, onNotice: (n) => notices.push(`${n.code}: ${n.message}`) })).free();
    return notices;
  });
  assert(refused.some((n) => /in memory only: .*private window/.test(n)), refused.join('; '));
});

test('stop, abort, break and free end an answer', async () => {
  const found = await it.page.evaluate(async () => {
    const { Ir } = await import('/index.js');
    const ir = await Ir.load('/models/ir-tiny.gguf', { device: 'cpu', threads: 1, cache: false });
    const endless = { ignoreEos: true, temperature: 0 };
    const stopped = ir.generate('Once', endless);
    let n = 0;
    for await (const _ of stopped) if (++n === 5) stopped.stop();
    const end = await stopped.finished;
    const control = new AbortController();
    const aborted = ir.generate('Once', { ...endless, signal: control.signal });
    let seen = 0;
    const why = await (async () => {
      for await (const _ of aborted) {
        seen++;
        if (seen === 3) control.abort(new Error('enough'));
      }
    })().catch((e) => e.message);
    for await (const _ of ir.generate('Once', endless)) break;
    const already = await (async () => ir.generate('a', { signal: AbortSignal.abort() }))().catch((e) => e.name);
    const next = await ir.generate('Once', { maxTokens: 3, ignoreEos: true }).finished;
    const freed = ir.generate('Once', endless);
    setTimeout(() => ir.free(), 30);
    const closed = await freed.finished.catch((e) => e.code);
    const later = await ir.tokenize('a').catch((e) => e.code);
    return { n, end, why, seen, already, next, closed, later };
  });
  assert.equal(found.end.reason, 'cancelled');
  assert.deepEqual([found.n, found.why, found.seen], [5, 'enough', 3]);
  assert.deepEqual([found.already, found.next.usage.completionTokens], ['AbortError', 3]);
  assert.deepEqual([found.closed, found.later], ['closed', 'closed']);
});

for (const [place, source, options] of [['CPU', '/slow.gguf', { device: 'cpu', threads: 1 }], ['GPU', '/models/ir-tiny.gguf', { device: 'gpu' }]]) {
  test(`a stop works within one token: ${place}`, async (t) => {
    const found = await it.page.evaluate(async ({ source, options }) => {
      const { Ir } = await import('/index.js');
      const ir = await Ir.load(source, { ...options, cache: false, contextLength: 256 });
      const endless = { ignoreEos: true, temperature: 0 };
      /** Ends an answer at its third piece: pieces that came later, and how the answer ended. */
      const cut = async (end, more) => {
        const answer = ir.generate([1, 2, 3], { ...endless, ...more });
        let [seen, late, at] = [0, 0, 0];
        try {
          for await (const _ of answer) {
            if (++seen > 3) late++;
            if (seen !== 3) continue;
            at = performance.now();
            end(answer);
          }
        } catch (error) {
          if (error.name !== 'AbortError') throw error;
        }
        const took = performance.now() - at;
        return { late, took, ...(await answer.finished.catch((e) => ({ reason: e.name }))) };
      };
      /** Tokens that were computed for the answers before, the first of each aside. */
      const computed = async () => {
        await ir.generate([1], { ...endless, maxTokens: 1 }).finished;
        return (await ir.stats()).generatedTokens;
      };
      const stopped = await cut((answer) => answer.stop());
      const before = await computed();
      const control = new AbortController();
      const aborted = await cut(() => control.abort(), { signal: control.signal });
      const after = await computed();
      ir.free();
      return { stopped, aborted, tokens: after - before + 1 };
    }, { source, options });
    const { stopped, aborted, tokens } = found;
    t.diagnostic(`stopped: ${stopped.usage.completionTokens} tokens computed, ended after ${stopped.took.toFixed(0)} ms; aborted: ${tokens} tokens`);
    assert.deepEqual([stopped.reason, stopped.late], ['cancelled', 0]);
    assert.deepEqual([aborted.reason, aborted.late], ['AbortError', 0]);
    assert(stopped.usage.completionTokens <= 4, `${stopped.usage.completionTokens} tokens, stopped at the third`);
    assert(tokens <= 4, `${tokens} tokens, aborted at the third`);
  });
}

test('a browser that computes wrongly with relaxed SIMD gets the plain build', { skip: unbuilt('plain') }, async () => {
  faulty = true;
  try {
    // A page of its own, since the other may have these modules already.
    const page = await it.context.newPage();
    await page.goto(`${it.url}blank`);
    for (const threads of [1, 2]) {
      const { answers, info, notices } = await ask(page, '/models/ir-tiny.gguf', { device: 'cpu', threads }, [job]);
      assert.equal(info.device.build, 'SIMD');
      assert.equal(answers[0].text, chat.reply);
      assert(notices.some((n) => /^wrong-simd: .*computes wrongly with relaxed SIMD/.test(n)), notices.join('; '));
    }
    await page.close();
  } finally {
    faulty = false;
  }
});

test('an engine whose memory ends says so', async () => {
  // More keys and values than a module's memory: the budget is refused or the engine stops with a sentence.
  const error = await loadFailure(it.page, '/models/ir-tiny.gguf', { contextLength: 50_000_000, cacheBytes: 1e15 });
  assert(error === null || ['limit', 'internal', 'request'].includes(error.code), JSON.stringify(error));
  const small = await loadFailure(it.page, '/models/ir-tiny.gguf', { contextLength: 2048, cacheBytes: 100_000 });
  assert.equal(small.code, 'limit');
  assert.match(small.message, /budget/);
});
