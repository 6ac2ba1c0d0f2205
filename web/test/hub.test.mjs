// Names at the hub: how they are read, which file they mean (as the command has it), and loading by one from a stand-in of the
// hub on loopback.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { after, before, test } from 'node:test';
import { choose, parseName, resolve } from '../js/hub.js';
import { sendRange } from '../serve.mjs';
import { ask, built, chats, loadFailure, open, tinyFile } from './harness.mjs';

test('names are told from addresses', () => {
  const name = (user, repo, tag, revision) => ({ user, repo, tag, revision });
  for (const [text, want] of [
    ['hf.co/me/fox', name('me', 'fox')],
    ['HF.co/me/fox:Q4_K_M', name('me', 'fox', 'Q4_K_M')],
    ['huggingface.co/me/fox:sub/fox-Q8_0.gguf@v1.0', name('me', 'fox', 'sub/fox-Q8_0.gguf', 'v1.0')],
    ['me/fox-GGUF:Q8_0', name('me', 'fox-GGUF', 'Q8_0')],
    ['me/fox@main', name('me', 'fox', undefined, 'main')],
    ...['./me/fox', '/me/fox', 'models/fox.gguf', 'https://host.example/me/fox.gguf', 'fox', 'a/b/c', 'blob:x/y', 'host.example/fox', '../fox', 'me/..']
      .map((text) => [text, null]),
  ]) assert.deepEqual(parseName(text), want, text);
  for (const text of ['hf.co/fox', 'hf.co/../..', 'hf.co/me/fox:../../x', 'hf.co/me/fox:', 'hf.co/a/b/c']) {
    assert.throws(() => parseName(text), /no model's name/, text);
  }
});

test('a name means the file that the command would fetch', () => {
  const cases = JSON.parse(readFileSync(new URL('../../server/store/tests/store/choices.json', import.meta.url)));
  for (const { files, tag, want } of cases) {
    if (want) assert.deepEqual(choose(files, tag ?? undefined, 'it'), want, JSON.stringify(files));
    else assert.throws(() => choose(files, tag ?? undefined, 'it'), { code: 'http' }, JSON.stringify(files));
  }
});

const bytes = tinyFile();
const sha256 = createHash('sha256').update(bytes).digest('hex');
const [chat] = chats();
const job = { messages: chat.messages, temperature: 0 };
const seen = [];
let hub;
let it;

/** A hub that lets other pages read it, as the real one does, and sends files from another address. */
function answer(request, response) {
  const { pathname } = new URL(request.url, 'http://x');
  seen.push(pathname);
  response.setHeader('Access-Control-Allow-Origin', '*');
  response.setHeader('Access-Control-Allow-Headers', '*');
  response.setHeader('Access-Control-Expose-Headers', '*');
  if (request.method === 'OPTIONS') return response.writeHead(204).end();
  const lfs = { sha256: pathname.includes('/liar/') ? '0'.repeat(64) : sha256, size: bytes.length };
  if (/^\/api\/models\/me\/(fox|liar)\/revision\/main$/.test(pathname)) {
    const siblings = [{ rfilename: 'README.md', size: 3 }, { rfilename: 'fox-Q4_K_M.gguf', size: bytes.length, lfs }, { rfilename: 'fox-Q8_0.gguf', size: 9 }];
    return response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify({ sha: 'abcdef0123', siblings }));
  }
  if (/^\/me\/(fox|liar)\/resolve\/abcdef0123\/fox-Q4_K_M\.gguf$/.test(pathname)) {
    return response.writeHead(302, { Location: '/cdn/file' }).end();
  }
  if (pathname !== '/cdn/file') return response.writeHead(404).end('{}');
  response.setHeader('ETag', '"1"');
  sendRange(request, response, bytes.length, (start, end) => Readable.from([bytes.subarray(start, end + 1)]));
}

before(async () => {
  hub = createServer(answer);
  await new Promise((resolve) => hub.listen(0, '127.0.0.1', resolve));
  it = await open();
});
after(async () => {
  await it.close();
  hub.close();
});
const options = () => ({ device: 'cpu', hub: `http://127.0.0.1:${hub.address().port}/` });

test('a repository is asked for the file, at its commit, with its digest', async () => {
  const { hub } = options();
  const [file, ...more] = await resolve(parseName('hf.co/me/fox:q4_k_m'), { hub });
  assert.deepEqual(more, []);
  assert.deepEqual(file, { url: `${hub}me/fox/resolve/abcdef0123/fox-Q4_K_M.gguf`, sha256, size: bytes.length });
  assert.deepEqual(Buffer.from(await (await fetch(file.url)).arrayBuffer()), bytes);
  await assert.rejects(resolve(parseName('me/none'), { hub }), { code: 'http', message: /none that anyone may read \(404\)/ });
});

test('a model is loaded by its name, and found again by its SHA-256', async () => {
  const first = await ask(it.page, 'hf.co/me/fox', { ...options(), cache: true }, [job]);
  assert.equal(first.answers[0].text, chat.reply);
  assert.ok(seen.includes('/cdn/file') && seen.includes('/me/fox/resolve/abcdef0123/fox-Q4_K_M.gguf'));
  seen.length = 0;
  const again = await ask(it.page, 'me/fox:Q4_K_M', { ...options(), cache: true }, [job]);
  assert.equal(again.answers[0].text, chat.reply);
  assert.deepEqual(seen, ['/api/models/me/fox/revision/main']);
});

/** The worker in a browser with Cross-Origin Storage, which Chromium has not: it holds what lies below `/shared/`. */
function workerWithSharedStore(_, response) {
  const store = `navigator.crossOriginStorage = { requestFileHandle: async ({ algorithm, value }) => {
    const answer = await fetch('/shared/' + algorithm + '/' + value);
    if (!answer.ok) throw new DOMException('there is none', 'NotFoundError');
    return { getFile: () => answer.blob() };
  } };`;
  response.writeHead(200, { 'Content-Type': 'text/javascript' }).end(`${store}\n${built('worker.js')}`);
}

test("a file of the store that a browser's pages share is found by its SHA-256, and checked", async () => {
  const asked = [];
  const lying = 'f'.repeat(64);
  const shared = (hash) => (_, response) => {
    asked.push(hash);
    response.writeHead(200).end(bytes);
  };
  const routes = { '/worker.js': workerWithSharedStore, [`/shared/SHA-256/${sha256}`]: shared(sha256), [`/shared/SHA-256/${lying}`]: shared(lying) };
  const browser = await open({ routes });
  try {
    const { answers } = await ask(browser.page, '/nowhere/fox.gguf', { device: 'cpu', cache: true, sha256 }, [job]);
    assert.equal(answers[0].text, chat.reply);
    assert.deepEqual(asked, [sha256]);
    const wrong = await loadFailure(browser.page, '/nowhere/fox.gguf', { device: 'cpu', cache: true, sha256: lying });
    assert.equal(wrong.code, 'integrity');
    const absent = await loadFailure(browser.page, '/nowhere/fox.gguf', { device: 'cpu', cache: true, sha256: '0'.repeat(64) });
    assert.deepEqual([absent.code, asked], ['http', [sha256, lying]]);
    // Without the cache nothing is looked for in it either.
    assert.equal((await loadFailure(browser.page, '/nowhere/fox.gguf', { device: 'cpu', cache: false, sha256 })).code, 'http');
  } finally {
    await browser.close();
  }
});

test('what the hub lacks, or sends wrong, is said', async () => {
  for (const [name, code, part] of [
    ['me/none', 'http', 'me/none: there is none that anyone may read (404)'],
    ['me/fox:Q2_K', 'http', 'me/fox has no Q2_K: it has Q4_K_M, Q8_0'],
    ['me/liar', 'integrity', ''],
  ]) {
    const error = await loadFailure(it.page, name, options());
    assert.equal(error?.code, code, JSON.stringify(error));
    assert.ok(error.message.includes(part), error.message);
  }
  const error = await loadFailure(it.page, 'me/fox', { device: 'cpu', hub: 'http://127.0.0.1:9' });
  assert.ok(error.code === 'network' && error.message.includes('cannot be asked'), JSON.stringify(error));
});
