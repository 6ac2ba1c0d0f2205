// Where a model's bytes come from, made alike: `{name, size, chunks()}`. Downloads go on where they broke off. Runs in
// the worker; nothing is held beyond one piece.

import { IrError } from './errors.js';

/** Bytes of a piece that is read from a file. */
export const PIECE = 2 << 20;
/** Attempts in a row without a single byte. */
const ATTEMPTS = 5;

/** A `File`, `Blob` or a file of the cache. */
export function blobSource(blob, name) {
  return {
    name: name ?? blob.name ?? 'model',
    size: blob.size,
    async *chunks() {
      for (let at = 0; at < blob.size; at += PIECE) {
        try {
          yield new Uint8Array(await blob.slice(at, at + PIECE).arrayBuffer());
        } catch (cause) {
          const sentence = 'the file cannot be read: it was moved, changed or deleted since it was chosen';
          throw new IrError('source', sentence, { cause });
        }
      }
    },
  };
}

/** A file behind an address. `open()` asks for it from `from` on; `chunks()` then gives the rest. */
export class UrlSource {
  constructor(url, { signal, size } = {}) {
    this.url = url;
    this.signal = signal;
    this.size = size;
    this.name = decodeURIComponent(new URL(url).pathname.split('/').pop() || 'model');
    this.position = 0;
    this.validator = null;
  }

  /** Sends the first request. `partial` is what the cache has of the file: used only while the server's is the same. */
  async open(partial) {
    const from = partial?.stored ?? 0;
    let response = await this.#request(from);
    const same = partial && response.status === 206 && tag(response) === partial.validator;
    if (from > 0 && !(same && total(response) === partial.size)) {
      await response.body?.cancel();
      response = await this.#request(0);
      this.position = 0;
    } else {
      this.position = from;
    }
    this.validator = tag(response);
    this.size = total(response) ?? this.size;
    if (!Number.isSafeInteger(this.size)) {
      await response.body?.cancel();
      throw new IrError('http', 'the server does not say how long the file is: give its length in bytes as options.size');
    }
    this.response = response;
    return this.position;
  }

  async *chunks() {
    let idle = 0;
    while (this.position < this.size) {
      try {
        this.response ??= await this.#again();
        for await (const bytes of body(this.response)) {
          const rest = bytes.subarray(0, this.size - this.position);
          this.position += rest.length;
          idle = 0;
          yield rest;
        }
        if (this.position < this.size) throw new TypeError('the connection ended early');
      } catch (error) {
        if (this.signal?.aborted) throw this.signal.reason;
        if (error instanceof IrError) throw error;
        this.response = null;
        if (++idle >= ATTEMPTS) {
          const sentence = `the download broke off at ${this.position} of ${this.size} bytes and did not go on`;
          throw new IrError('network', `${sentence}: check the connection and try again`, { cause: error });
        }
        await pause(250 * 2 ** idle, this.signal);
      }
    }
    await this.response?.body?.cancel().catch(() => {});
  }

  /** The rest of a broken download; what a server without ranges sends again is passed over. */
  async #again() {
    const response = await this.#request(this.position);
    if (tag(response) !== this.validator || (total(response) ?? this.size) !== this.size) {
      throw new IrError('integrity', 'the file on the server changed while it was loading: load it again');
    }
    if (response.status === 206 || this.position === 0) return response;
    let skip = this.position;
    const rest = new TransformStream({
      transform(bytes, out) {
        const n = Math.min(skip, bytes.length);
        skip -= n;
        if (n < bytes.length) out.enqueue(bytes.subarray(n));
      },
    });
    return new Response(response.body.pipeThrough(rest));
  }

  async #request(from) {
    let response;
    try {
      response = await fetch(this.url, {
        signal: this.signal,
        headers: { Range: `bytes=${from}-` },
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
    if (response.status === 416 && from > 0) return new Response(null, { status: 200 });
    const why = { 401: 'asks for a login', 403: 'forbids it', 404: 'has no such file', 410: 'has no such file any more' };
    const sentence = `the server ${why[response.status] ?? 'refused'} (${response.status}): check the address`;
    throw new IrError('http', sentence);
  }
}

async function* body(response) {
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** What tells one state of a file from another: its ETag or its date. */
function tag(response) {
  return response.headers.get('etag') ?? response.headers.get('last-modified');
}

/** The whole file's length, where the response says it. */
function total(response) {
  const range = /\/(\d+)$/.exec(response.headers.get('content-range') ?? '');
  if (range) return Number(range[1]);
  const packed = response.headers.get('content-encoding');
  const length = response.headers.get('content-length');
  return response.status === 200 && length && !packed ? Number(length) : undefined;
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener('abort', () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
