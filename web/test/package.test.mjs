// The package: what npm would publish, that its types hold, that a bundler builds with it, and what the modules weigh.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { open } from './harness.mjs';

const web = fileURLToPath(new URL('..', import.meta.url));
/** Bytes that a module may have, gzipped. */
const LIMIT = 700_000;

test('every module is small', (t) => {
  const modules = readdirSync(join(web, 'dist/wasm')).filter((n) => n.endsWith('.wasm'));
  assert(modules.length > 0);
  for (const name of modules) {
    const bytes = readFileSync(join(web, 'dist/wasm', name));
    const packed = gzipSync(bytes, { level: 9 }).length;
    t.diagnostic(`${name}: ${bytes.length} bytes, ${packed} gzipped`);
    assert(packed < LIMIT, `${name}: ${packed}`);
    // No path of the machine that built it.
    assert(!/\/(root|home)\//.test(bytes.toString('latin1')), `${name} names a folder of the machine that built it`);
  }
});

test('npm packs what a user needs and nothing of the page', () => {
  const [{ files }] = JSON.parse(execFileSync('npm', ['pack', '--dry-run', '--json'], { cwd: web, stdio: ['ignore', 'pipe', 'ignore'] }));
  const names = files.map((f) => f.path);
  for (const name of ['package.json', 'README.md', 'dist/index.js', 'dist/index.d.ts', 'dist/worker.js', 'dist/variants.js', 'dist/models/ir-tiny.gguf', 'dist/wasm/ir_plain_bg.wasm']) {
    assert(names.includes(name), `${name} is missing`);
  }
  assert(!names.some((n) => /app\.js|index\.html|test|glue/.test(n)), names.join());
});

test('the types say what the code does', () => {
  const dir = mkdtempSync(join(tmpdir(), 'ir-types-'));
  try {
    writeFileSync(join(dir, 'use.ts'), `
      import { Ir, IrError, type Message } from ${JSON.stringify(join(web, 'dist/index.js'))};
      const messages: Message[] = [{ role: 'user', content: 'hi' }];
      const ir = await Ir.load(new File([], 'a'), { device: 'gpu', contextLength: 5, onProgress: (p) => p.loaded / p.total });
      for await (const piece of ir.chat(messages, { temperature: 0, signal: AbortSignal.timeout(5) })) console.log(piece.text);
      const { usage } = await ir.generate(await ir.tokenize('a')).finished;
      usage.completionTokens.toFixed();
      await Ir.load((await Ir.cache.list())[0]!);
      await Ir.load(new ReadableStream<Uint8Array>(), { size: 3 });
      // @ts-expect-error: an option that does not exist
      ir.generate('a', { topp: 1 });
      // @ts-expect-error: no source
      await Ir.load(5);
      try { ir.free(); } catch (e) { if (e instanceof IrError && e.code === 'lost') throw e; }
    `);
    writeFileSync(join(dir, 'package.json'), '{"type":"module"}');
    execFileSync(join(web, 'node_modules/.bin/tsc'), ['--noEmit', '--strict', '--target', 'es2022', '--module', 'nodenext', '--lib', 'es2022,dom,dom.iterable,dom.asynciterable', join(dir, 'use.ts')], { encoding: 'utf8', stdio: 'pipe' });
  } catch (error) {
    assert.fail(error.stdout || error.message);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

test('a page built by Vite answers', async () => {
  const example = join(web, 'example-vite');
  execFileSync('npm', ['ci', '--no-audit', '--no-fund', '--silent'], { cwd: example, stdio: 'pipe' });
  execFileSync('npm', ['run', 'build', '--silent'], { cwd: example, stdio: 'pipe' });
  const it = await open({ root: join(example, 'dist'), blank: false });
  try {
    await it.page.goto(it.url);
    await it.page.waitForSelector('[data-done]', { timeout: 60_000 });
    assert.equal(await it.page.textContent('#answer'), 'Hello! How can I help you?');
    assert.deepEqual(it.problems, []);
  } finally {
    await it.close();
  }
});
