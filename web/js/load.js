// Loading, in the worker: device and build are chosen, the source opened, its pieces fed to the engine and, if wanted,
// written to the cache on the way.

import * as cache from './cache.js';
import { IrError } from './errors.js';
import { resolve } from './hub.js';
import { probe } from './gpu.js';
import { choose, start } from './module.js';
import { PIECE, UrlSource, blobSource, nameOf } from './source.js';

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

/** Loads a model; `post` takes notices and progress. Gives `{host, notices}`. */
export async function load(source, options, { signal, post, pull }) {
  const { gpu, notice } = await chooseDevice(options.device ?? 'auto');
  const remark = (code, message) => post({ type: 'notice', code, message });
  if (notice) remark(notice.code, notice.message);
  const chosen = choose({ gpu, threads: options.threads, variant: options.variant });
  remark('build', `${gpu ? gpu.name : 'CPU'}: ${chosen.why}`);
  const started = start(chosen, { gpu, notice: (message) => remark('wrong-simd', message) });
  const [{ bindings, threads }, opened] = await Promise.all([started, open(source, options, { signal, post, pull })]);
  const wanted = (options.sha256 ?? opened.sha256)?.toLowerCase();
  const settings = {
    gpu: Boolean(gpu),
    subgroups: Boolean(gpu?.subgroups),
    allForms: options.allForms,
    threads,
    contextLength: options.contextLength,
    cacheBytes: options.cacheBytes,
    // What was checked when it was kept is not computed again.
    sha256: opened.checked === wanted ? undefined : wanted,
  };
  try {
    const loading = await bindings.Loading.begin(opened.size, JSON.stringify(settings));
    await feed(loading, opened, { signal, post });
    const host = loading.finish();
    await opened.keeper?.complete();
    return { host, name: opened.name, gpu };
  } catch (error) {
    await opened.keeper?.giveUp(['format', 'integrity'].includes(error?.code));
    throw error;
  }
}

async function feed(loading, opened, { signal, post }) {
  const started = performance.now();
  let at = 0;
  let reported = -Infinity;
  let turn = 0;
  const progress = () => {
    const now = performance.now();
    if (now - reported < 100 && at < opened.size) return;
    reported = now;
    const rate = (at - opened.fromCache) / Math.max(1e-3, (now - started) / 1000);
    post({ type: 'progress', loaded: at, total: opened.size, bytesPerSecond: Math.max(0, rate), cached: at <= opened.fromCache });
  };
  for await (const bytes of opened.chunks()) {
    signal.throwIfAborted();
    loading.feed(at, bytes);
    opened.keeper?.keep(at, bytes);
    at += bytes.byteLength;
    progress();
    if (at - turn >= TURN) {
      turn = at;
      await loading.settled();
      await new Promise((resolve) => setTimeout(resolve));
    }
  }
  progress();
}

async function open(source, options, { signal, post, pull }) {
  switch (source.kind) {
    case 'blob':
      return { ...blobSource(source.blob, source.name), fromCache: 0, keeper: await keeperOf(source, options, post) };
    case 'handle':
      return open({ kind: 'blob', blob: await source.handle.getFile() }, options, { signal, post, pull });
    case 'cached': {
      const entry = await cache.find(source.key);
      if (!entry?.complete) throw new IrError('source', 'this model is not in the cache any more: load it anew');
      return fromCache(entry);
    }
    case 'hub':
      return openHub(source.name, options, { signal, post });
    case 'chunks':
      return { name: options.name ?? 'model', size: options.size, fromCache: 0, chunks: pull };
    default:
      return openUrl(source.url, options, { signal, post });
  }
}

function fromCache(entry) {
  return { ...blobSource(entry.file, entry.name), fromCache: entry.size, checked: entry.sha256 };
}

/** A model by its name at the hub. */
async function openHub(name, options, { signal, post }) {
  const file = await resolve(name, { hub: options.hub, signal });
  const sha256 = options.sha256 ?? file.sha256;
  const opened = await openUrl(file.url, { ...options, sha256, size: options.size ?? file.size }, { signal, post });
  return { ...opened, sha256 };
}

/** A file that is here already, wherever it came from: found by its SHA-256, which is checked again where others wrote it. */
async function openKept(url, { sha256, cache: wanted }) {
  if (!sha256 || wanted === false) return null;
  const kept = await cache.findSha256(sha256.toLowerCase()).catch(() => null);
  if (kept) return fromCache(kept);
  const shared = await cache.findShared(sha256.toLowerCase());
  return shared && { ...blobSource(shared, nameOf(url)), fromCache: shared.size };
}

async function openUrl(url, options, { signal, post }) {
  const here = await openKept(url, options);
  if (here && (options.size === undefined || options.size === here.size)) return here;
  const key = options.cache === false ? null : await cache.keyOf(url).catch(() => null);
  const entry = key && (await cache.find(key).catch(() => null));
  if (entry?.complete && (options.size === undefined || options.size === entry.size)) return fromCache(entry);
  const remote = new UrlSource(url, { signal, size: options.size });
  const from = await remote.open(entry ?? undefined);
  if (options.size !== undefined && remote.size !== options.size) {
    remote.close();
    throw new IrError('integrity', `the file has ${remote.size} bytes and should have ${options.size}: check the address`);
  }
  const opened = { name: remote.name, size: remote.size, fromCache: from };
  if (key) {
    const record = { name: remote.name, source: url, size: remote.size, validator: remote.validator };
    opened.keeper = await Keeper.open(key, record, from, options, post);
  }
  const { writer } = opened.keeper ?? {};
  opened.chunks = async function* () {
    if (from > 0 && writer) yield* written(writer, from);
    else if (from > 0) yield* blobSource(entry.file.slice(0, from)).chunks();
    yield* remote.chunks();
  };
  return opened;
}

/** The first `end` bytes of what is being written. */
async function* written(writer, end) {
  const buffer = new Uint8Array(PIECE);
  for (let at = 0; at < end;) {
    const bytes = writer.read(at, buffer.subarray(0, end - at));
    if (bytes.length === 0) throw new IrError('storage', 'what was kept of the file is gone: load it again');
    at += bytes.length;
    yield bytes;
  }
}

/** A file from disk is kept only where that is asked. */
async function keeperOf({ name, blob }, options, post) {
  if (!options.cache) return undefined;
  const record = { name: name ?? blob.name ?? 'model', source: null, size: blob.size, validator: null };
  const key = await cache.keyOf(`file:${record.name}:${blob.size}:${blob.lastModified ?? 0}`).catch(() => null);
  return key ? Keeper.open(key, record, 0, options, post) : undefined;
}

/** The cache's side of a load. Where the cache fails, the load goes on without it, and a notice says so. */
class Keeper {
  static async open(key, record, from, options, post) {
    const keeper = new Keeper();
    Object.assign(keeper, { from, post, resumable: record.source !== null });
    try {
      keeper.writer = await cache.Writer.open(key, { ...record, sha256: options.sha256?.toLowerCase() }, from);
    } catch (error) {
      keeper.#fail(error);
    }
    return keeper;
  }

  #fail(error) {
    this.post({ type: 'notice', code: 'memory-only', message: `the model is in memory only: ${error.message}` });
    this.writer = null;
  }

  keep(offset, bytes) {
    const { writer } = this;
    if (!writer || offset + bytes.byteLength <= this.from) return;
    try {
      writer.write(offset, bytes);
    } catch (error) {
      this.#fail(error);
      writer.discard();
    }
  }

  async complete() {
    await this.writer?.complete().catch((error) => this.#fail(error));
  }

  /** A part of a download is kept to be gone on with, unless the file is no good. */
  async giveUp(damaged) {
    if (damaged || !this.resumable) await this.writer?.discard();
    else this.writer?.suspend();
  }
}
