// Where a file's bytes come from, made alike: `{name, size, chunks()}`. Downloads go on where they broke off. Runs in the
// worker; nothing is held beyond one piece.

import { IrError } from './errors.js';

/** Bytes of a piece at most. */
export const PIECE = 2 << 20;
/**
 * Bytes that are asked of a server at a time. A browser reads ahead of the page, 64 MB and more of one response whatever
 * the page does, so what is on its way is bounded by what is asked for: this part and the next.
 */
export const PART = 4 << 20;
/** Bytes that are asked for where a header is wanted: those of a model's later parts are a list of tensors. */
const HEAD = 64 << 10;
/** Attempts in a row without a single byte. */
const ATTEMPTS = 5;

/** A `File`, `Blob` or a file of the cache. */
export function blobSource(blob, name) {
  return {
    name: name ?? blob.name ?? 'model',
    size: blob.size,
    async *chunks() {
      try {
        yield* body(blob.stream());
      } catch (cause) {
        const sentence = 'the file cannot be read: it was moved, changed or deleted since it was chosen';
        throw new IrError('source', sentence, { cause });
      }
    },
  };
}

/** The last part of an address's path. */
export function nameOf(url) {
  const last = new URL(url).pathname.split('/').pop() || 'model';
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}

/** A file behind an address. `open()` asks for it from `from` on; `chunks()` then gives the rest, `part` bytes a request. */
export class UrlSource {
  constructor(url, { signal, size, part = PART } = {}) {
    this.url = url;
    this.signal = signal;
    this.size = size;
    this.part = part;
    /** The next part is asked for while one comes. */
    this.ahead = true;
    this.name = nameOf(url);
    this.position = 0;
    this.validator = null;
    /** The part that is asked for: a promise of it. */
    this.next = null;
  }

  /** Sends the first request. `partial` is what the cache has of the file: used only while the server's is the same. */
  async open(partial) {
    const from = partial?.stored ?? 0;
    let response = await this.#request(from);
    const same = partial && response.status === 206 && tag(response) === partial.validator;
    if (from > 0 && !(same && extent(response).total === partial.size)) {
      await response.body?.cancel();
      response = await this.#request(0);
      this.position = 0;
    } else {
      this.position = from;
    }
    this.validator = tag(response);
    this.size = extent(response).total ?? this.size;
    if (!Number.isSafeInteger(this.size)) {
      await response.body?.cancel();
      throw new IrError('http', 'the server does not say how long the file is: give its length in bytes as options.size');
    }
    this.next = Promise.resolve(this.#part(response, this.position));
    return this.position;
  }

  async *chunks() {
    let idle = 0;
    try {
      while (this.position < this.size) {
        try {
          const part = await (this.next ?? this.#ask(this.position));
          this.next = this.ahead && part.end < this.size ? this.#ask(part.end) : null;
          // It is waited for later, or given up.
          this.next?.catch(() => {});
          for await (const bytes of this.#taken(part)) {
            idle = 0;
            yield bytes;
          }
          if (this.position < part.end) throw new TypeError('the connection ended early');
        } catch (error) {
          if (this.signal?.aborted) throw this.signal.reason;
          if (error instanceof IrError) throw error;
          this.close();
          if (++idle >= ATTEMPTS) {
            const sentence = `the download broke off at ${this.position} of ${this.size} bytes and did not go on`;
            throw new IrError('network', `${sentence}: check the connection and try again`, { cause: error });
          }
          await pause(250 * 2 ** idle, this.signal);
        }
      }
    } finally {
      this.close();
    }
  }

  /** A copy of the first bytes, as many as one request asks for. */
  async first() {
    this.ahead = false;
    const pieces = [];
    let left = Math.min(this.part, this.size);
    for await (const bytes of this.chunks()) {
      pieces.push(bytes.slice(0, left));
      left -= Math.min(left, bytes.length);
      if (left === 0) break;
    }
    return pieces;
  }

  /** Gives up what is asked for. */
  close() {
    this.next?.then(({ response }) => response.body?.cancel()).catch(() => {});
    this.next = null;
  }

  /** The part's bytes from where the file has come to; what a server sends besides is passed over. */
  async *#taken({ response, from, end }) {
    let skip = this.position - from;
    for await (const bytes of body(response.body)) {
      const rest = bytes.subarray(Math.min(skip, bytes.length)).subarray(0, end - this.position);
      skip = Math.max(0, skip - bytes.length);
      this.position += rest.length;
      if (rest.length > 0) yield rest;
      if (this.position === end) return;
    }
  }

  async #ask(from) {
    const response = await this.#request(from, true);
    if (tag(response) === this.validator && (extent(response).total ?? this.size) === this.size) return this.#part(response, from);
    await response.body?.cancel();
    throw new IrError('integrity', 'the file on the server changed while it was loading: load it again');
  }

  /** What of the file the body of an answer to a request from `asked` on is: a server without ranges sends all again. */
  #part(response, asked) {
    if (response.status !== 206) return { response, from: 0, end: this.size };
    const { from = asked, end = Math.min(asked + this.part, this.size) } = extent(response);
    if (from <= asked && end > asked && end <= this.size) return { response, from, end };
    throw new IrError('http', `the server sent another part of the file than bytes ${asked} on: check the address`);
  }

  /** `again`: the file is being loaded, and a server that is busy for a moment is asked once more. */
  async #request(from, again = false) {
    let response;
    try {
      response = await fetch(this.url, {
        signal: this.signal,
        headers: { Range: `bytes=${from}-${from + this.part - 1}` },
        // Kept by the cache of models alone, and not one part after the other, as the browser's keeps them.
        cache: 'no-store',
        credentials: 'omit',
        referrerPolicy: 'no-referrer',
      });
    } catch (cause) {
      if (this.signal?.aborted) throw this.signal.reason;
      if (from > 0 || this.position > 0) throw cause;
      const { origin } = new URL(this.url);
      const hint = origin === self.location.origin
        ? 'is the server running?'
        : `${origin} may not allow other pages to read it, or this page's own policy forbids it. Download the file and open it from disk`;
      throw new IrError('network', `the file cannot be fetched: ${hint}`, { cause });
    }
    if (response.ok) return response;
    await response.body?.cancel();
    if (again && (response.status === 429 || response.status >= 500)) throw new TypeError(`the server is busy (${response.status})`);
    if (response.status === 416 && from > 0) return new Response(null, { status: 200 });
    const why = { 401: 'asks for a login', 403: 'forbids it', 404: 'has no such file', 410: 'has no such file any more' };
    const sentence = `the server ${why[response.status] ?? 'refused'} (${response.status}): check the address`;
    throw new IrError('http', sentence);
  }
}

/**
 * A file behind an address, of which first the header is wanted: `{name, size, validator, head()}`. `head()` gives the file from
 * its start, of which as much is taken as is needed.
 */
export async function peek(url, { signal, size }) {
  const remote = new UrlSource(url, { signal, size, part: HEAD });
  await remote.open();
  const { name, validator } = remote;
  const pieces = await remote.first();
  const stored = pieces.reduce((sum, bytes) => sum + bytes.length, 0);
  return {
    name,
    size: remote.size,
    validator,
    async *head() {
      yield* pieces;
      if (stored === remote.size) return;
      const rest = new UrlSource(url, { signal, size: remote.size });
      if ((await rest.open({ stored, validator, size: remote.size })) !== stored) {
        // A server that sends all again, or another file, which is found out when it is loaded.
        yield* skipped(rest.chunks(), stored);
      } else {
        yield* rest.chunks();
      }
    },
  };
}

/** Chunks behind the first `skip` bytes. */
async function* skipped(chunks, skip) {
  for await (const bytes of chunks) {
    if (bytes.length > skip) yield bytes.subarray(skip);
    skip -= Math.min(skip, bytes.length);
  }
}

/** The bytes of a stream. A piece is there until the next is asked for: all come in one buffer, where the browser can. */
async function* body(stream) {
  const [reader, own] = readerOf(stream);
  let buffer = own && new ArrayBuffer(PIECE);
  try {
    for (;;) {
      const { done, value } = await (own ? reader.read(new Uint8Array(buffer)) : reader.read());
      if (done) return;
      yield value;
      if (own) buffer = value.buffer;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function readerOf(stream) {
  try {
    return [stream.getReader({ mode: 'byob' }), true];
  } catch {
    return [stream.getReader(), false];
  }
}

/** What tells one state of a file from another: its ETag or its date. */
function tag(response) {
  return response.headers.get('etag') ?? response.headers.get('last-modified');
}

/** `{from, end, total}`: what a response says of the bytes that it has and of the whole file's length. */
function extent(response) {
  const [, first, last, all] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(response.headers.get('content-range') ?? '') ?? [];
  const whole = response.status === 200 && !response.headers.get('content-encoding') && response.headers.get('content-length');
  const number = (text) => (/^\d+$/.test(text ?? '') ? Number(text) : undefined);
  return { from: number(first), end: last && Number(last) + 1, total: number(all) ?? number(whole || undefined) };
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', abort, { once: true });
  });
}
