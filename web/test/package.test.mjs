// The package as npm would publish it: what is in it, that its types hold, that a bundler builds with it, and what the
// modules weigh.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { FULL, open } from './harness.mjs';

const web = fileURLToPath(new URL('..', import.meta.url));
const example = join(web, 'example-vite');
/** Bytes that a module may have, gzipped: as published, with `IR_FULL`; else as `build.sh --thin` makes it. */
const LIMIT = FULL ? 900_000 : 2_000_000;

const modules = readdirSync(join(web, 'dist/wasm')).filter((n) => n.endsWith('.wasm'));

/** A project of a user: the example, with the packed package in its `node_modules`. */
let project;
let names;
before(() => {
  project = mkdtempSync(join(tmpdir(), 'ir-web-user-'));
  const [packed] = JSON.parse(run('npm', ['pack', '--json', '--pack-destination', project], web));
  names = packed.files.map((f) => f.path);
  const modules = join(project, 'node_modules');
  mkdirSync(join(modules, 'ir-web'), { recursive: true });
  run('tar', ['-xzf', join(project, packed.filename), '-C', join(modules, 'ir-web'), '--strip-components=1'], project);
  for (const name of ['index.html', 'package.json', 'vite.config.js', 'src']) cpSync(join(example, name), join(project, name), { recursive: true });
});
after(() => rmSync(project, { recursive: true, force: true }));

function run(command, args, cwd) {
  try {
    return execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    throw new Error(`${command} ${args.join(' ')}: ${error.stdout}${error.stderr}`);
  }
}

test('every module is small', (t) => {
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
  for (const name of ['package.json', 'README.md', 'dist/index.js', 'dist/index.d.ts', 'dist/worker.js', 'dist/variants.js', 'dist/models/ir-tiny.gguf', ...modules.map((n) => `dist/wasm/${n}`)]) {
    assert(names.includes(name), `${name} is missing`);
  }
  assert(!names.some((n) => /app\.js|index\.html|test|glue\/|example/.test(n)), names.join());
});

test('the types say what the code does', () => {
  writeFileSync(join(project, 'use.ts'), `
    import { Ir, IrError, type Message } from 'ir-web';
    const messages: Message[] = [{ role: 'user', content: 'hi' }];
    const ir = await Ir.load(new File([], 'a'), { device: 'gpu', contextLength: 5, onProgress: (p) => p.loaded / p.total });
    for await (const piece of ir.chat(messages, { temperature: 0, signal: AbortSignal.timeout(5) })) console.log(piece.text);
    await ir.chat(messages, { format: { schema: { type: 'object' } } }).text();
    // @ts-expect-error: no such format
    ir.chat(messages, { format: { xml: '' } });
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
  const tsc = join(web, 'node_modules/.bin/tsc');
  run(tsc, ['--noEmit', '--strict', '--target', 'es2022', '--module', 'nodenext', '--lib', 'es2022,dom,dom.iterable,dom.asynciterable', 'use.ts'], project);
});

test('a page built by Vite with the package answers', async () => {
  if (!existsSync(join(example, 'node_modules/vite'))) run('npm', ['ci', '--no-audit', '--no-fund', '--silent'], example);
  for (const name of readdirSync(join(example, 'node_modules'))) {
    if (name !== 'ir-web') symlinkSync(join(example, 'node_modules', name), join(project, 'node_modules', name));
  }
  run('npm', ['run', 'build', '--silent'], project);
  const it = await open({ root: join(project, 'dist'), blank: false });
  try {
    await it.page.goto(it.url);
    await it.page.waitForSelector('[data-done]');
    assert.equal(await it.page.textContent('#answer'), 'Hello! How can I help you?');
    assert.deepEqual(it.problems, []);
  } finally {
    await it.close();
  }
});
