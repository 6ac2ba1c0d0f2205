// Loading, in the worker: device and build are chosen, the source opened, the pieces of its files fed to the engine and, if
// wanted, written to the cache on the way.

import { IrError } from './errors.js';
import { probe } from './gpu.js';
import { Keeper } from './keeper.js';
import { choose, start } from './module.js';
import { inFile, nameOfAll, open } from './open.js';

/** Bytes between two waits for the device and looks at the queue. */
const TURN = 2 << 20;

/** Chooses between GPU and CPU: `{gpu, notice}`. */
async function chooseDevice(device) {
  if (device === 'cpu') return { gpu: null };
  const gpu = await probe();
  if (gpu && (device === 'gpu' || !gpu.software)) return { gpu };
  if (device === 'gpu') {
    const sentence = navigator.gpu
      ? 'this browser finds no GPU that it may use: update the driver, or load with device "cpu"'
      : 'this browser has no WebGPU: use a newer one, or load with device "cpu"';
    throw new IrError('device', sentence);
  }
  const why = gpu ? 'the only GPU here is a software one' : navigator.gpu ? 'no GPU was found' : 'this browser has no WebGPU';
  return { gpu: null, notice: { code: 'no-gpu', message: `${why}: the CPU computes` } };
}

/** Loads a model; `post` takes notices and progress. Gives `{host, name, gpu}`. */
export async function load(source, options, { signal, post, pull }) {
  const { gpu, notice } = await chooseDevice(options.device ?? 'auto');
  const remark = (code, message) => post({ type: 'notice', code, message });
  if (notice) remark(notice.code, notice.message);
  const chosen = choose({ gpu, threads: options.threads, variant: options.variant });
  remark('build', `${gpu ? gpu.name : 'CPU'}: ${chosen.why}`);
  const started = start(chosen, { gpu, notice: (message) => remark('wrong-simd', message) });
  const keeper = new Keeper(post);
  const [{ bindings, threads }, files] = await Promise.all([started, open(source, options, { signal, pull, keeper })]);
  const settings = {
    gpu: Boolean(gpu),
    subgroups: Boolean(gpu?.subgroups),
    allForms: options.allForms,
    threads,
    contextLength: options.contextLength,
    cacheBytes: options.cacheBytes,
    chain: options.chain,
    files: files.map(({ name, size, sha256, checked }) => {
      const wanted = sha256?.toLowerCase();
      // What was checked when it was kept is not computed again.
      return { name, size, sha256: checked === wanted ? undefined : wanted };
    }),
  };
  try {
    const loading = await bindings.Loading.begin(JSON.stringify(settings));
    await new Feeding(loading, files, { signal, post, keeper }).all();
    return { host: loading.finish(), name: nameOfAll(files), gpu };
  } catch (error) {
    await keeper.giveUp(['format', 'integrity'].includes(error?.code));
    throw error;
  }
}

/** The way of a model's files to the engine. */
class Feeding {
  #at = 0;
  #fromCache = 0;
  #reported = -Infinity;
  #turn = 0;
  #started = performance.now();

  constructor(loading, files, { signal, post, keeper }) {
    Object.assign(this, { loading, files, signal, post, keeper });
    this.total = files.reduce((sum, f) => sum + f.size, 0);
  }

  async all() {
    if (this.files.length > 1) await this.#headers();
    const left = new Set(this.files.keys());
    for (let due; (due = this.loading.due()) && left.delete(due[0]);) await this.#named(due[0], this.#file(due[0], true));
    // What was taken whole with its header is still to be kept.
    if (!this.loading.due()) for (const i of left) await this.#named(i, this.#file(i, false));
    this.#progress();
  }

  #named(i, work) {
    return this.files.length > 1 ? inFile(this.files[i].name, work) : work;
  }

  /** The headers of all files: only together they say what the model is. */
  async #headers() {
    for (let last = -1; !this.loading.hasHeaders() && this.loading.due()[0] !== last;) {
      [last] = this.loading.due();
      await this.#named(last, this.#header(last));
    }
  }

  async #header(i) {
    let at = 0;
    for await (const bytes of this.files[i].head()) {
      this.signal.throwIfAborted();
      this.loading.feed(i, at, bytes);
      at += bytes.byteLength;
      if (this.loading.hasHeaders() || this.loading.due()[0] !== i) return;
    }
  }

  /** A file from its start to its end. What of it was taken for its header is passed over. */
  async #file(i, due) {
    const { fromCache, chunks } = await this.files[i].begin();
    let at = 0;
    for await (const bytes of chunks()) {
      this.signal.throwIfAborted();
      if (bytes.byteLength === 0) continue;
      if (due) this.loading.feed(i, at, bytes);
      this.keeper.keep(at, bytes);
      at += bytes.byteLength;
      this.#at += bytes.byteLength;
      this.#fromCache += Math.min(bytes.byteLength, Math.max(0, fromCache - at + bytes.byteLength));
      this.#progress();
      if (this.#at - this.#turn < TURN) continue;
      this.#turn = this.#at;
      await this.loading.settled();
      await new Promise((resolve) => setTimeout(resolve));
    }
    if (at === this.files[i].size) await this.keeper.complete();
  }

  #progress() {
    const now = performance.now();
    if (now - this.#reported < 100 && this.#at < this.total) return;
    this.#reported = now;
    const rate = (this.#at - this.#fromCache) / Math.max(1e-3, (now - this.#started) / 1000);
    this.post({
      type: 'progress',
      loaded: this.#at,
      total: this.total,
      bytesPerSecond: Math.max(0, rate),
      cached: this.#at <= this.#fromCache,
    });
  }
}
