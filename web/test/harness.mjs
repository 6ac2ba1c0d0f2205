// What the tests share: Chromium with the page's server, golden data, and how a golden file is asked in the page. Every
// request that leaves the server of the test is an error of the test.

import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { serve } from '../serve.mjs';

export const FULL = process.env.IR_FULL === '1';
const project = fileURLToPath(new URL('../..', import.meta.url));
const golden = join(project, 'engine/tests/data/golden');
const executablePath = process.env.IR_CHROMIUM ?? '/usr/bin/chromium';
const ARGS = [
  '--headless=new', '--no-sandbox', '--enable-unsafe-webgpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

/** A browser of its own with a page on an empty document of the test's server. */
export async function open({ root = process.env.IR_DIST, prefix, isolate = true, routes = {}, blank = true, args = [], options = {} } = {}) {
  const blankPage = (_, response) => response.writeHead(200, { 'Content-Type': 'text/html' }).end('<!doctype html><title>test</title>');
  const server = await serve({ root, prefix, isolate, routes: { '/blank': blankPage, ...routes, ...models() } });
  const profile = mkdtempSync(join(tmpdir(), 'ir-web-'));
  const context = await chromium.launchPersistentContext(profile, { headless: false, executablePath, args: [...ARGS, ...args], ...options });
  // A machine that is busy with other things is no failure.
  context.setDefaultTimeout(120_000);
  const page = context.pages()[0] ?? (await context.newPage());
  const problems = [];
  page.on('pageerror', (error) => problems.push(String(error)));
  if (blank) await page.goto(`${server.url}blank`);
  const close = async () => {
    await context.close();
    await server.close();
    rmSync(profile, { recursive: true, force: true });
  };
  return { page, context, profile, url: server.url, problems, close };
}

/**
 * The library watches the network for its user, and for that the browser keeps up to 200 MB of what was fetched. From now
 * on it does not watch the page's new workers: memory is measured as a person's browser takes it.
 */
export function unwatchWorkers({ page }) {
  const manager = page._connection?.toImpl?.(page)?.delegate?._networkManager;
  if (typeof manager?.addSession !== 'function') throw new Error('this version of playwright-core has its network sessions elsewhere');
  manager.addSession = async () => {};
}

/** The processes of a browser that a test opened: all carry its profile or descend from one that does. */
export function processes({ profile }) {
  const parent = new Map();
  const ours = new Set();
  for (const id of readdirSync('/proc').filter((n) => /^\d+$/.test(n))) {
    try {
      const stat = readFileSync(`/proc/${id}/stat`, 'utf8');
      parent.set(id, stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
      if (readFileSync(`/proc/${id}/cmdline`, 'utf8').includes(profile)) ours.add(id);
    } catch { /* it ended */ }
  }
  for (let grew = true; grew;) {
    grew = false;
    for (const [id, of] of parent) if (ours.has(of) && !ours.has(id)) grew = ours.add(id) && true;
  }
  return ours;
}

/** Ends the process that a browser's GPU work is in: every device is lost. */
export function endGpu(browser) {
  const isGpu = (id) => readFileSync(`/proc/${id}/cmdline`, 'utf8').includes('--type=gpu-process');
  const found = [...processes(browser)].filter(isGpu);
  found.forEach((id) => process.kill(Number(id), 'SIGKILL'));
  return found.length;
}

/** `/golden/NAME.gguf` for each golden file. */
function models() {
  const route = (file) => (_, response) => {
    const bytes = readFileSync(file);
    response.writeHead(200, { 'Content-Length': bytes.length }).end(bytes);
  };
  return Object.fromEntries(families().map((f) => [`/golden/${f}.gguf`, route(join(golden, f, 'model-bf16.gguf'))]));
}

/** Families that generate: encoders have golden embeddings and no tokens. */
export function families() {
  const has = (f) => readdirSync(join(golden, f)).includes('model-bf16.gguf') && goldenOf(f).greedy;
  return readdirSync(golden).filter(has).sort();
}

export function goldenOf(family) {
  return JSON.parse(readFileSync(join(golden, family, 'golden.json')));
}
export const goldenFile = (family) => readFileSync(join(golden, family, 'model-bf16.gguf'));
export const tinyFile = () => readFileSync(join(project, 'engine/models/ir-tiny/ir-tiny-q4_0.gguf'));

/** Chats whose answers do not hang on near-ties: see `engine/models/ir-tiny/golden.json`. */
export function chats() {
  const { chats } = JSON.parse(readFileSync(join(project, 'engine/models/ir-tiny/golden.json')));
  return chats.filter((c) => c.min_margin > 0.3);
}

const dist = process.env.IR_DIST ?? join(project, 'web/dist');

/** A file of the built package. */
export const built = (name) => readFileSync(join(dist, name));

/** Whether this build of the module is in `dist`; a reason to skip where not. */
export function unbuilt(variant) {
  return readdirSync(join(dist, 'wasm')).includes(`ir_${variant}_bg.wasm`) ? false : `the build ${variant} is not in dist`;
}

/** The places that a model is asked on: options for `Ir.load`. */
export const PLACES = {
  'GPU': { device: 'gpu' },
  'GPU with subgroups': { device: 'gpu', allForms: true },
  'CPU, one thread': { device: 'cpu', threads: 1 },
  'CPU, two threads': { device: 'cpu', threads: 2 },
  'CPU, plain SIMD': { device: 'cpu', variant: 'plain' },
};

/** Loads in the page what `source` names there, asks each of `jobs`, frees; gives answers and info. */
export function ask(page, source, options, jobs) {
  return page.evaluate(async ({ source, options, jobs }) => {
    const { Ir } = await import('/index.js');
    const notices = [];
    const ir = await Ir.load(source, { cache: false, ...options, onNotice: (n) => notices.push(`${n.code}: ${n.message}`) });
    const answers = [];
    try {
      for (const { messages, tokens, ...more } of jobs) {
        const answer = messages ? ir.chat(messages, more) : ir.generate(tokens, more);
        const ids = [];
        for await (const piece of answer) if (piece.token !== undefined) ids.push(piece.token);
        answers.push({ ids, ...(await answer.finished) });
      }
      return { answers, info: ir.info(), stats: await ir.stats(), notices };
    } finally {
      ir.free();
    }
  }, { source, options, jobs });
}

/** The error that loading `source` ends with, `null` where it loads: `{name, code, message, typed}`. */
export function loadFailure(page, source, options = {}) {
  return page.evaluate(async ({ source, options }) => {
    const { Ir, IrError } = await import('/index.js');
    try {
      const from = typeof source === 'string' ? source : new Blob([Uint8Array.from(source)]);
      (await Ir.load(from, { device: 'cpu', cache: false, ...options })).free();
      return null;
    } catch (error) {
      return { name: error.name, code: error.code, message: error.message, typed: error instanceof IrError };
    }
  }, { source, options });
}
