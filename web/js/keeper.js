// The cache's side of a load: what of its files is written there on the way. Where the cache fails, the load goes on without
// it, and a notice says so.

import * as cache from './cache.js';

export class Keeper {
  #post;
  /** The file under way. */
  #writer = null;
  /** Bytes of it that were there before. */
  #from = 0;
  /** All that this load wrote. */
  #written = [];
  #failed = false;
  /** Whether what is written can be gone on with. */
  #resumable = true;

  constructor(post) {
    this.#post = post;
  }

  /** Goes on to another file; says whether it is kept. `need`: bytes that this file and those behind it take. */
  async begin(key, record, from, need = record.size - from) {
    this.#writer = null;
    if (this.#failed) return false;
    this.#from = from;
    this.#resumable = record.source !== null;
    try {
      this.#writer = await cache.Writer.open(key, record, from, need);
      this.#written.push(this.#writer);
    } catch (error) {
      await this.#fail(error);
    }
    return this.#writer !== null;
  }

  /** What is not kept whole is not kept at all. */
  async #fail(error) {
    this.#failed = true;
    this.#writer = null;
    this.#post({ type: 'notice', code: 'memory-only', message: `the model is in memory only: ${error.message}` });
    await this.#discard();
  }

  async #discard() {
    for (const writer of this.#written.splice(0)) await writer.discard();
  }

  /** Takes bytes of the file under way. */
  keep(offset, bytes) {
    if (!this.#writer || offset + bytes.byteLength <= this.#from) return;
    try {
      this.#writer.write(offset, bytes);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** The first `end` bytes of the file under way, in pieces; fills `buffer` with each. */
  async *before(end, buffer) {
    for (let at = 0; at < end;) {
      const bytes = this.#writer?.read(at, buffer.subarray(0, end - at)) ?? [];
      if (bytes.length === 0) throw new cache.Gone();
      at += bytes.length;
      yield bytes;
    }
  }

  /** The file under way is whole. */
  async complete() {
    await this.#writer?.complete().catch((error) => this.#fail(error));
    this.#writer = null;
  }

  /** The load ended early. A part of a download is kept to be gone on with, unless it is no good. */
  async giveUp(damaged) {
    if (damaged || !this.#resumable) await this.#discard();
    else this.#writer?.suspend();
    this.#writer = null;
  }
}
