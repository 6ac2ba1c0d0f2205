// Which build of the module runs here, and how it is started: with threads, where shared memory is allowed, or without.

import { VARIANTS } from './variants.js';
import { IrError } from './errors.js';

// Two tiny modules, valid only where the browser knows the instruction in them.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
const RELAXED = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11];
const known = (bytes) => WebAssembly.validate(new Uint8Array(bytes));

/** The build to take, how many threads it gets, and a sentence that says why. */
export function choose({ gpu, threads: asked, variant }) {
  if (!known(SIMD)) throw new IrError('unsupported', 'this browser has no WebAssembly SIMD: use a newer one');
  const relaxed = known(RELAXED);
  const cores = navigator.hardwareConcurrency || 1;
  const threads = Math.max(1, Math.min(asked ?? cores, 16));
  const has = (name) => name in VARIANTS;
  if (variant) {
    if (!has(variant)) throw new IrError('request', `there is no build ${variant} here: ${Object.keys(VARIANTS).join(', ')}`);
    return { variant, threads: variant === 'threads' ? threads : 1, why: `the ${variant} build was asked for` };
  }
  const single = relaxed && has('relaxed') ? 'relaxed' : 'plain';
  const simd = single === 'relaxed' ? 'relaxed SIMD' : 'SIMD; this browser has no relaxed SIMD, which is faster';
  if (gpu) return { variant: single, threads: 1, why: 'the GPU computes' };
  const one = (why) => ({ variant: single, threads: 1, why: `one thread with ${simd}: ${why}` });
  if (threads === 1) return one(asked === 1 ? 'one was asked for' : 'there is one core');
  if (!globalThis.crossOriginIsolated) {
    return one('the page is not cross-origin isolated (its server sends no COOP and COEP headers), so it has no threads');
  }
  if (!relaxed) return one('the build with threads needs relaxed SIMD');
  if (!has('threads')) return one('there is no build with threads here');
  return { variant: 'threads', threads, why: `${threads} threads with relaxed SIMD` };
}

/**
 * Starts a build: `{bindings, threads}`. Where the CPU is to compute and this browser's compiler gets relaxed SIMD wrong,
 * the plain build is started instead, and `notice` reported.
 */
export async function start(chosen, { gpu, notice }) {
  let { variant, threads } = chosen;
  let started = await instantiate(VARIANTS[variant]);
  if (!gpu && !started.bindings.exact()) {
    const wrong = `this browser computes wrongly with ${started.bindings.build()}`;
    if (variant === 'plain' || !('plain' in VARIANTS)) throw new IrError('unsupported', `${wrong}: use a newer one`);
    notice(`${wrong}: one thread with SIMD`);
    [variant, threads] = ['plain', 1];
    started = await instantiate(VARIANTS[variant]);
  }
  if (variant === 'threads') await startThreads(started.module, started.memory, threads);
  return { bindings: started.bindings, threads };
}

/** Starts a module as it is: `{bindings, module, memory}`. */
export async function instantiate({ glue, wasm }) {
  let bindings;
  let module;
  try {
    [bindings, module] = await Promise.all([glue(), compile(wasm)]);
  } catch (cause) {
    throw new IrError('network', `the engine's module cannot be loaded (${cause?.message ?? cause}): reload the page`, { cause });
  }
  const { memory } = await bindings.default({ module_or_path: module });
  return { bindings, module, memory };
}

async function compile(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${response.status} for ${url.pathname}`);
  try {
    return await WebAssembly.compileStreaming(response.clone());
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    // A server that does not know the MIME type.
    return WebAssembly.compile(await response.arrayBuffer());
  }
}

/** The threads live as long as the worker that started them. */
async function startThreads(module, memory, threads) {
  const ready = [];
  for (let index = 1; index < threads; index++) {
    const worker = new Worker(new URL('./thread.js', import.meta.url), { type: 'module', name: `ir-thread-${index}` });
    ready.push(new Promise((resolve, reject) => {
      worker.onmessage = resolve;
      worker.onerror = (event) => reject(new IrError('internal', `a thread did not start: ${event.message}`));
    }));
    worker.postMessage({ module, memory });
  }
  await Promise.all(ready);
}
