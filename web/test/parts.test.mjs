// Split models: their parts as files in any order, by the address of one, by a name at the hub, from the cache; a download that
// goes on, what is refused, and the page.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { after, before, beforeEach, test } from 'node:test';
import { sendRange } from '../serve.mjs';
import { split, zeros } from './gguf.mjs';
import { ask, chats, goldenFile, loadFailure, open, tinyFile } from './harness.mjs';

const name = (i, stem = 'fox') => `${stem}-${String(i + 1).padStart(5, '0')}-of-00003.gguf`;
/** The first part has most of the header, the last most of the data. */
const parts = split(tinyFile(), [0, 4, tinyTensors() - 4]);
const [chat] = chats();
const job = { messages: chat.messages, temperature: 0 };
const sha256 = parts.map((bytes) => createHash('sha256').update(bytes).digest('hex'));
const total = parts.reduce((sum, bytes) => sum + bytes.length, 0);
/** What the server of the test does: which parts it has, how slow it is, and what it was asked for. */
const server = { absent: [], until: Infinity, ranges: true, tag: '"1"', seen: [] };

function tinyTensors() {
  return Number(tinyFile().readBigUInt64LE(8));
}

const send = (i, bytes) => (request, response) => {
  server.seen.push(`${i + 1}: ${request.headers.range}`);
  if (server.absent.includes(i)) return response.writeHead(404).end('no');
  response.setHeader('ETag', server.tag);
  if (!server.ranges) delete request.headers.range;
  // Of the last part: what is behind it takes longer than anybody waits.
  const until = i === 2 ? server.until : Infinity;
  const pieces = async function* (start, end) {
    for (let at = start, n; at <= end; at += n) {
      n = at < until ? 65536 : 1024;
      yield bytes.subarray(at, Math.min(at + n, end + 1));
      if (at >= until) await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  return sendRange(request, response, bytes.length, (start, end) => Readable.from(pieces(start, end)));
};

/** A model of 70 MB, whose first header is longer than what is asked for first. */
function big() {
  const { head, zeros: n } = zeros({ layers: 2, width: 1024, hidden: 4096, vocabulary: 32000 });
  return split(Buffer.concat([head, Buffer.alloc(n)]), [1, 9, 10]);
}

let it;
before(async () => {
  const large = Object.fromEntries(big().map((bytes, i) => [`/models/${name(i, 'big')}`, send(i, bytes)]));
  const own = Object.fromEntries(parts.map((bytes, i) => [`/models/${name(i)}`, send(i, bytes)]));
  // Of another model: the names agree, and what is in them does not.
  const others = Object.fromEntries([parts[0], parts[2], parts[1]].map((bytes, i) => [`/models/${name(i, 'owl')}`, send(i, bytes)]));
  it = await open({ routes: { ...own, ...others, ...large, '/models/alone.gguf': send(1, parts[1]) } });
});
after(() => it.close());
beforeEach(() => {
  Object.assign(server, { absent: [], until: Infinity, ranges: true, tag: '"1"', seen: [] });
  return it.page.evaluate(async () => (await import('/index.js')).Ir.cache.clear());
});

/** Loads files, `{name, bytes}` each, given in this order; gives the answer or the error, and what the page kept. */
const loadFiles = (files, options = {}) => it.page.evaluate(async ({ files, options, job }) => {
  const { Ir } = await import('/index.js');
  const list = files.map(({ name, bytes }) => new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name));
  const progress = [];
  try {
    const ir = await Ir.load(list, { device: 'cpu', ...options, onProgress: (p) => progress.push(p) });
    const text = await ir.chat(job.messages, { temperature: 0 }).text();
    const info = ir.info();
    ir.free();
    return { text, info, last: progress.at(-1), kept: await Ir.cache.list() };
  } catch (error) {
    return { code: error.code, message: error.message, kept: await Ir.cache.list() };
  }
}, { files: files.map((f) => ({ name: f.name, bytes: f.bytes.toString('base64') })), options, job });
const own = (i, as = name(i)) => ({ name: as, bytes: parts[i] });

test('files in any order, on the CPU and on the GPU', async () => {
  for (const [order, device] of [[[0, 1, 2], 'cpu'], [[2, 0, 1], 'cpu'], [[1, 2, 0], 'gpu']]) {
    const found = await loadFiles(order.map((i) => own(i)), { device, sha256: order.map((i) => sha256[i]) });
    assert.equal(found.text, chat.reply, `${order} ${found.message}`);
    assert.equal(found.info.fileBytes, total);
    assert.deepEqual([found.last.loaded, found.last.total], [total, total]);
    assert.deepEqual(found.kept, []);
  }
  // Their names need not say their places.
  assert.equal((await loadFiles([own(1, 'b.gguf'), own(0, 'c.gguf'), own(2, 'a.gguf')])).text, chat.reply);
});

test('what is missing, doubled, mixed up or of another model is refused by a name', async () => {
  const whole = { name: 'whole.gguf', bytes: tinyFile() };
  const golden = split(goldenFile('llama3'), [2, 3, Number(goldenFile('llama3').readBigUInt64LE(8)) - 5]);
  const cut = { name: name(2), bytes: parts[2].subarray(0, parts[2].length - 5000) };
  for (const [files, options, code, sentence] of [
    [[own(0), own(2)], {}, 'format', /part 2 of 3 is missing: give fox-00002-of-00003\.gguf too/],
    [[own(1)], {}, 'format', /part 2 of 3 of a split model.*give all of them together/],
    [[own(0), own(1), own(1, 'again.gguf'), own(2)], {}, 'format', /fox-00002-of-00003\.gguf and again\.gguf are both part 2 of 3/],
    [[own(0), own(2, name(1)), own(1, name(2))], {}, 'format', /fox-00002-of-00003\.gguf holds part 3 of 3.*mixed up/],
    [[own(0), own(1), { name: name(2, 'owl'), bytes: golden[2] }], {}, 'format', /owl-00003-of-00003\.gguf is a part of another model than fox-00001/],
    [[own(0), whole, own(2)], {}, 'format', /whole\.gguf is a whole model/],
    [[own(0), own(1), { name: 'text.gguf', bytes: Buffer.from('a text and no model at all, said the fox') }], {}, 'format', /text\.gguf: /],
    [[own(0), own(1), cut], {}, 'format', /fox-00003-of-00003\.gguf: the file is cut short/],
    [[own(0), own(1), own(2)], { sha256: [sha256[0], sha256[0], sha256[2]] }, 'integrity', /SHA-256 of fox-00002-of-00003\.gguf/],
    [[own(0), own(1), own(2)], { sha256: sha256[0] }, 'request', /sha256 is given for 1: give a list of 3/],
  ]) {
    const error = await loadFiles(files, { ...options, cache: true });
    const what = `${sentence}: ${JSON.stringify(error)}`;
    assert.equal(error.code, code, what);
    assert.match(error.message, sentence, what);
    assert.deepEqual(error.kept, [], what);
  }
});

test('the address of a part stands for all; they are one entry of the cache, found again without the server', async () => {
  const options = { device: 'cpu', cache: true };
  const first = await ask(it.page, `/models/${name(1)}`, options, [job]);
  assert.equal(first.answers[0].text, chat.reply);
  // Of each part its header is asked for, and then all of it; one that is all header comes last, to be kept.
  const asked = server.seen.map((line) => line.slice(0, line.indexOf('-')));
  for (const half of [asked.slice(0, 3), asked.slice(3).sort()]) assert.deepEqual(half, ['1: bytes=0', '2: bytes=0', '3: bytes=0']);
  assert(server.seen.slice(0, 3).every((line) => line.endsWith('-65535')), server.seen.join('; '));
  server.seen = [];
  server.absent = [0, 1, 2];
  for (const i of [0, 2]) assert.equal((await ask(it.page, `/models/${name(i)}`, options, [job])).answers[0].text, chat.reply);
  assert.deepEqual(server.seen, []);
  const found = await it.page.evaluate(async ({ job }) => {
    const { Ir } = await import('/index.js');
    const list = await Ir.cache.list();
    const ir = await Ir.load(list[0], { device: 'cpu' });
    const text = await ir.chat(job.messages, { temperature: 0 }).text();
    ir.free();
    return { list, text, gone: await Ir.cache.delete(list[0].key), after: await Ir.cache.list() };
  }, { job });
  assert.deepEqual([found.list.length, found.list[0].parts, found.list[0].size, found.list[0].complete], [1, 3, total, true]);
  assert.deepEqual([found.list[0].name, found.list[0].stored], ['fox', total]);
  assert.deepEqual([found.text, found.gone, found.after], [chat.reply, true, []]);
});

test('long headers, with ranges and without; the module holds no part', async () => {
  for (const ranges of [true, false]) {
    server.ranges = ranges;
    const options = { device: 'gpu', cacheBytes: 4e6 };
    const { answers, info, stats } = await ask(it.page, `/models/${name(0, 'big')}`, options, [{ tokens: [1], maxTokens: 1 }]);
    assert.equal(answers[0].ids.length, 1);
    assert(info.fileBytes > 65e6 && stats.memoryBytes < 40e6, `${stats.memoryBytes} bytes of the module for ${info.fileBytes} of file`);
  }
});

/** Begins a load and ends it within the last part; gives what is kept of it. */
async function abort() {
  server.until = 500_000;
  const aborted = await it.page.evaluate(async ({ url, least }) => {
    const { Ir } = await import('/index.js');
    const control = new AbortController();
    const onProgress = ({ loaded }) => loaded > least && control.abort();
    const error = await Ir.load(url, { device: 'cpu', signal: control.signal, onProgress }).catch((e) => e);
    for (let i = 0; i < 40 && !((await Ir.cache.list())[0]?.stored > least); i++) await new Promise((r) => setTimeout(r, 50));
    return { name: error.name, entries: await Ir.cache.list() };
  }, { url: `/models/${name(0)}`, least: parts[1].length + 300_000 });
  assert.equal(aborted.name, 'AbortError');
  const [entry] = aborted.entries;
  assert(aborted.entries.length === 1 && entry.stored < total && !entry.complete && entry.size === total, JSON.stringify(aborted.entries));
  Object.assign(server, { until: Infinity, seen: [] });
  return entry;
}

test('a load that was aborted within a part is gone on with there', async () => {
  const entry = await abort();
  const { answers } = await ask(it.page, `/models/${name(0)}`, { device: 'cpu', cache: true }, [job]);
  assert.equal(answers[0].text, chat.reply);
  // The second part is there whole and still the server's, of the third a piece; the first, which is all header, would have been kept last.
  const left = entry.stored - parts[1].length;
  const all = `-${(4 << 20) - 1}`;
  assert.deepEqual(server.seen, ['1: bytes=0-65535', '2: bytes=0-65535', '3: bytes=0-65535', `3: bytes=${left}-${left + (4 << 20) - 1}`, `1: bytes=0${all}`]);
});

test('parts of two versions are not put together', async () => {
  await abort();
  server.tag = '"2"';
  const { answers } = await ask(it.page, `/models/${name(0)}`, { device: 'cpu', cache: true }, [job]);
  assert.equal(answers[0].text, chat.reply);
  for (const i of [1, 2, 3]) assert(server.seen.includes(`${i}: bytes=0-${(4 << 20) - 1}`), server.seen.join('; '));
});

test('a part that the server lacks, or that is another, is named, and nothing is kept of it', async () => {
  server.absent = [1];
  const absent = await loadFailure(it.page, `/models/${name(0)}`, { cache: true });
  assert.deepEqual([absent.code, /^fox-00002-of-00003\.gguf: .*404/.test(absent.message)], ['http', true], absent.message);
  server.absent = [];
  const mixed = await loadFailure(it.page, `/models/${name(0, 'owl')}`, { cache: true });
  assert.deepEqual([mixed.code, /^owl-00002-of-00003\.gguf holds part 3 of 3/.test(mixed.message)], ['format', true], mixed.message);
  const alone = await loadFailure(it.page, '/models/alone.gguf', { cache: true });
  assert.deepEqual([alone.code, /part 2 of 3/.test(alone.message)], ['format', true], alone.message);
  assert.deepEqual(await it.page.evaluate(async () => (await import('/index.js')).Ir.cache.list()), []);
});

test('no room for all parts: none is kept, and one notice says so', async () => {
  const cdp = await it.context.newCDPSession(it.page);
  const { origin } = new URL(it.url);
  await cdp.send('Storage.overrideQuotaForOrigin', { origin, quotaSize: 1_900_000 });
  const { answers, notices } = await ask(it.page, `/models/${name(0)}`, { device: 'cpu', cache: true }, [job]);
  await cdp.send('Storage.overrideQuotaForOrigin', { origin });
  assert.equal(answers[0].text, chat.reply);
  assert.equal(notices.filter((n) => n.startsWith('memory-only: ')).length, 1, notices.join('; '));
  assert.deepEqual(await it.page.evaluate(async () => (await import('/index.js')).Ir.cache.list()), []);
});

test('a name at the hub whose file is split', async () => {
  const asked = [];
  const hub = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://x');
    asked.push(pathname);
    for (const header of ['Origin', 'Headers']) response.setHeader(`Access-Control-Allow-${header}`, '*');
    response.setHeader('Access-Control-Expose-Headers', '*');
    if (request.method === 'OPTIONS') return response.writeHead(204).end();
    if (pathname === '/api/models/me/fox/revision/main') {
      const siblings = parts.map((bytes, i) => ({ rfilename: `Q4_0/${name(i, 'fox-Q4_0')}`, lfs: { sha256: sha256[i], size: bytes.length } }));
      return response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify({ sha: 'abcdef0123', siblings }));
    }
    const i = parts.findIndex((_, i) => pathname === `/me/fox/resolve/abcdef0123/Q4_0/${name(i, 'fox-Q4_0')}`);
    return i < 0 ? response.writeHead(404).end('{}') : send(i, parts[i])(request, response);
  });
  await new Promise((resolve) => hub.listen(0, '127.0.0.1', resolve));
  try {
    const options = { device: 'cpu', cache: true, hub: `http://127.0.0.1:${hub.address().port}` };
    assert.equal((await ask(it.page, 'hf.co/me/fox:Q4_0', options, [job])).answers[0].text, chat.reply);
    asked.length = 0;
    // All of them are found again by their SHA-256.
    assert.equal((await ask(it.page, 'me/fox', options, [job])).answers[0].text, chat.reply);
    assert.deepEqual(asked, ['/api/models/me/fox/revision/main']);
  } finally {
    hub.close();
  }
});

test('the page takes parts that are chosen or dropped together, and keeps them as one model', async () => {
  const { page } = it;
  await page.goto(it.url);
  await page.check('#keep');
  const buffers = [2, 0, 1].map((i) => ({ name: name(i), mimeType: 'application/octet-stream', buffer: parts[i] }));
  await page.setInputFiles('#file', buffers);
  await page.waitForSelector('body[data-state=chat]');
  await page.click('#change');
  const kept = page.locator('#kept-list li');
  await kept.first().waitFor();
  assert.equal(await kept.count(), 1);
  assert.match(await kept.first().textContent(), /^fox1\.9 MB in 3 parts/);
  await kept.first().getByRole('button', { name: 'Open' }).click();
  await page.waitForSelector('body[data-state=chat]');
  await page.click('#change');
  await page.getByRole('button', { name: 'Delete fox' }).click();
  await page.waitForSelector('#kept', { state: 'hidden' });
  await page.uncheck('#keep');
  await page.evaluate(async (names) => {
    const data = new DataTransfer();
    for (const name of names) data.items.add(new File([await (await fetch(`models/${name}`)).arrayBuffer()], name));
    document.getElementById('drop').dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
  }, [name(1), name(2), name(0)]);
  await page.waitForSelector('body[data-state=chat]');
  await page.click('#change');
  await page.fill('#url', `models/${name(2)}`);
  await page.click('#url-form button');
  await page.waitForSelector('body[data-state=chat]');
  await page.evaluate(() => localStorage.clear());
  await page.goto(`${it.url}blank`);
  assert.deepEqual(it.problems, []);
});
