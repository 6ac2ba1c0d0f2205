// `Ir`: a language model in this browser. Each one has a worker of its own, which owns the engine; here is only what
// talks to it. Types and their documentation are in `index.d.ts`.

import * as cache from './cache.js';
import { IrError, pack, unpack } from './errors.js';
import { Answer } from './answer.js';
import { parseName } from './hub.js';
import { PIECE } from './source.js';

export { IrError };

const LOAD = ['device', 'contextLength', 'threads', 'cache', 'cacheBytes', 'sha256', 'size', 'name', 'variant', 'allForms', 'hub', 'chain'];

export class Ir {
  #worker;
  #next = 1;
  #waiting = new Map();
  #closed = null;
  #info;
  #name;

  static async load(source, options = {}) {
    const { signal, onProgress, onNotice, createWorker, ...rest } = options;
    signal?.throwIfAborted();
    for (const key of Object.keys(rest)) {
      if (!LOAD.includes(key)) throw new IrError('request', `Ir.load knows no option ${JSON.stringify(key)}`);
    }
    if (!['auto', 'gpu', 'cpu', undefined].includes(rest.device)) {
      throw new IrError('request', 'device must be "auto", "gpu" or "cpu"');
    }
    const { plain, iterator } = describe(source, rest);
    const ir = new Ir();
    ir.#start(createWorker);
    try {
      const loaded = await ir.#loading(plain, rest, { signal, onProgress, onNotice, iterator });
      ir.#info = loaded.info;
      ir.#name = loaded.name;
      return ir;
    } catch (error) {
      ir.free();
      throw error;
    }
  }

  static get cache() {
    return { list: cache.list, delete: cache.remove, clear: cache.clear, room: cache.room };
  }

  chat(messages, options = {}) {
    return this.#generate({ messages }, options);
  }

  generate(prompt, options = {}) {
    return this.#generate(typeof prompt === 'string' ? { prompt } : { tokens: Array.from(prompt) }, options);
  }

  async tokenize(text, { addSpecial = false, parseSpecial = true, signal } = {}) {
    return this.#ask('tokenize', { text: String(text), addSpecial, parseSpecial }, signal);
  }

  async detokenize(tokens, { special = false, signal } = {}) {
    return this.#ask('detokenize', { tokens: Uint32Array.from(tokens), special }, signal);
  }

  info() {
    return { ...this.#info, name: this.#info.name ?? this.#name };
  }

  stats({ signal } = {}) {
    return this.#ask('stats', {}, signal);
  }

  free() {
    this.#close(new IrError('closed', 'the model was freed: load it again'));
  }

  #start(createWorker) {
    this.#worker = createWorker?.() ?? new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'ir' });
    this.#worker.onmessage = ({ data }) => this.#waiting.get(data.id)?.(data);
    this.#worker.onerror = (event) => {
      const why = event.message ? ` (${event.message})` : '';
      this.#close(new IrError('internal', `the engine's worker failed${why}: load the model again`));
    };
  }

  #close(error) {
    if (this.#closed) return;
    this.#closed = error;
    const worker = this.#worker;
    worker.postMessage({ command: 'free' });
    // It closes itself; a worker that is deep in a computation is ended.
    setTimeout(() => worker.terminate(), 200);
    for (const take of [...this.#waiting.values()]) take({ type: 'error', error: pack(error) });
    this.#waiting.clear();
  }

  /** Sends a command; `take` gets all that comes back under its number. */
  #send(message, take, transfer = []) {
    const id = this.#next++;
    this.#waiting.set(id, take);
    this.#worker.postMessage({ id, ...message }, transfer);
    return id;
  }

  #ask(command, message, signal) {
    return new Promise((resolve, reject) => {
      if (this.#closed) throw this.#closed;
      signal?.throwIfAborted();
      const abort = () => reject(signal.reason);
      const id = this.#send({ command, ...message }, (data) => {
        this.#waiting.delete(id);
        signal?.removeEventListener('abort', abort);
        if (data.type === 'value') resolve(data.value);
        else reject(unpack(data.error));
      });
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  #loading(source, options, { signal, onProgress, onNotice, iterator }) {
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#worker.postMessage({ command: 'abort' });
        // The worker has a moment to put away what it has downloaded.
        setTimeout(() => reject(signal.reason), 100);
      };
      const id = this.#send({ command: 'load', source, options }, (data) => {
        if (signal?.aborted) {
          if (data.type === 'error' || data.type === 'value') {
            this.#waiting.delete(id);
            reject(signal.reason);
          }
          return;
        }
        switch (data.type) {
          case 'progress':
            onProgress?.({ loaded: data.loaded, total: data.total, bytesPerSecond: data.bytesPerSecond, cached: data.cached });
            break;
          case 'notice':
            onNotice?.({ code: data.code, message: data.message });
            break;
          case 'pull':
            this.#pulled(iterator, data.buffer);
            break;
          default:
            this.#waiting.delete(id);
            signal?.removeEventListener('abort', abort);
            if (data.type === 'value') resolve(data.value);
            else reject(unpack(data.error));
        }
      });
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  /** Fills the worker's buffer with the iterable's next piece, and sends it back. */
  async #pulled(iterator, buffer) {
    try {
      const { done, value } = await iterator.next();
      if (done) {
        this.#worker.postMessage({ command: 'pulled' });
        return;
      }
      const bytes = new Uint8Array(buffer, 0, value.length);
      bytes.set(value);
      this.#worker.postMessage({ command: 'pulled', bytes }, [buffer]);
    } catch (error) {
      const code = error instanceof IrError ? error.code : 'source';
      this.#worker.postMessage({ command: 'pulled', error: { code, message: String(error?.message ?? error) } });
    }
  }

  #generate(what, { signal, format, ...options }) {
    if (this.#closed) throw this.#closed;
    signal?.throwIfAborted();
    const date = new Date();
    const clock = { unixSeconds: Math.floor(date / 1000), utcOffset: -60 * date.getTimezoneOffset() };
    const seed = options.seed ?? crypto.getRandomValues(new Uint32Array(1))[0];
    const command = { command: 'generate', request: json({ ...clock, ...options, seed, ...what }) };
    if (format !== undefined) command.format = json(format);
    const answer = new Answer(signal, () => this.#worker.postMessage({ command: 'stop', target: id }));
    const id = this.#send(command, (data) => {
      if (data.type !== 'token') this.#waiting.delete(id);
      answer.take(data);
    });
    return answer;
  }
}

/** As JSON: a browser clones what is nested deeply into nothing. */
function json(value) {
  let cause;
  try {
    const text = JSON.stringify(value);
    if (text !== undefined) return text;
  } catch (error) {
    cause = error;
  }
  throw new IrError('request', `the options are no plain data${cause ? ` (${cause.message})` : ''}: give what JSON can hold`, { cause });
}

const isHandle = (source) => Boolean(globalThis.FileSystemFileHandle) && source instanceof FileSystemFileHandle;
const isFile = (source) => source instanceof Blob || typeof source === 'string' || source instanceof URL || isHandle(source);

/** A source as plain data for the worker, and what stays here of an iterable. */
function describe(source, options) {
  const listed = globalThis.FileList && source instanceof FileList;
  if (listed || (Array.isArray(source) && source.length > 0 && source.every(isFile))) {
    const parts = [...source].map((file) => describe(file, {}).plain);
    if (parts.length === 0) throw new IrError('request', 'no file was chosen');
    if (parts.some(({ kind }) => kind === 'hub')) throw new IrError('request', 'a name at the hub stands for all parts of a model: give it alone');
    return { plain: parts.length === 1 ? { ...parts[0], name: options.name ?? parts[0].name } : { kind: 'parts', parts } };
  }
  if (source instanceof Blob) return { plain: { kind: 'blob', blob: source, name: options.name } };
  if (typeof source === 'string' || source instanceof URL) {
    const name = typeof source === 'string' ? parseName(source) : null;
    if (name) return { plain: { kind: 'hub', name } };
    let url;
    try {
      url = new URL(source, globalThis.document?.baseURI ?? self.location.href);
    } catch {
      throw new IrError('request', `${JSON.stringify(source)} is no address: give one that begins with https://`);
    }
    if (!['http:', 'https:', 'blob:', 'data:'].includes(url.protocol)) {
      throw new IrError('request', `a page cannot fetch ${url.protocol} addresses: use https://, or choose the file itself`);
    }
    return { plain: { kind: 'url', url: url.href } };
  }
  if (isHandle(source)) return { plain: { kind: 'handle', handle: source } };
  if (typeof source?.key === 'string') return { plain: { kind: 'cached', key: source.key } };
  const iterator = source?.[Symbol.asyncIterator]?.() ?? source?.[Symbol.iterator]?.() ?? (source?.getReader ? reader(source) : null);
  if (!iterator) {
    throw new IrError('request', 'a source is a File, a Blob, an address, a name at the hub, a list of the parts of a model, an entry of Ir.cache.list(), or an iterable of bytes');
  }
  if (!Number.isSafeInteger(options.size) || options.size < 0) {
    throw new IrError('request', 'an iterable does not say how long it is: give options.size in bytes');
  }
  return { plain: { kind: 'chunks' }, iterator: pieces(iterator) };
}

/** What an iterable of bytes gives, in pieces that the worker's buffer holds, however long its own are. */
async function* pieces(iterator) {
  for (;;) {
    const { done, value } = await iterator.next();
    if (done) return;
    const bytes = ArrayBuffer.isView(value) ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength) : new Uint8Array(value);
    for (let at = 0; at < bytes.length; at += PIECE) yield bytes.subarray(at, at + PIECE);
  }
}

function reader(stream) {
  const inner = stream.getReader();
  return { next: () => inner.read() };
}
