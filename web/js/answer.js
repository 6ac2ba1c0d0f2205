// `Answer`: a reply under way, as an async iterable of pieces and as promises of the whole.

import { unpack } from './errors.js';

export class Answer {
  #pieces = [];
  #wake = null;
  #end = null;
  #stopped = false;
  #stop;
  #signal;
  #text = '';
  #thinking = '';
  #toolCalls = [];
  #resolve;
  #reject;

  constructor(signal, stop) {
    this.#signal = signal;
    this.#stop = stop;
    this.finished = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Who only iterates gets the error there.
    this.finished.catch(() => {});
    signal?.addEventListener('abort', this.#abort, { once: true });
  }

  #abort = () => {
    this.stop();
    this.#finish({ error: this.#signal.reason });
  };

  /** What the worker sent. */
  take(data) {
    if (this.#end) return;
    if (data.type === 'error') {
      this.#finish({ error: unpack(data.error) });
      return;
    }
    // What was made while a stop was on its way to the worker is in the usage, not in the text.
    const { text, thinking, calls, token, logprobs } = this.#stopped ? { ...data, text: '', thinking: '', calls: undefined } : data;
    this.#text += text;
    this.#thinking += thinking;
    for (const { type, call } of calls ?? []) if (type === 'end') this.#toolCalls.push(call);
    const more = calls ? { calls } : {};
    if (data.type === 'token') {
      if (this.#stopped) return;
      this.#pieces.push({ text, thinking, token, ...more, ...(logprobs ? { logprobs } : {}) });
      this.#wake?.();
      return;
    }
    if (text || thinking || calls) this.#pieces.push({ text, thinking, ...more });
    const reason = this.#stopped ? 'cancelled' : data.reason;
    const stop = this.#stopped ? null : (data.stop ?? null);
    this.#finish({ value: { text: this.#text, thinking: this.#thinking, toolCalls: this.#toolCalls, reason, stop, usage: data.usage } });
  }

  #finish(end) {
    if (this.#end) return;
    this.#end = end;
    this.#signal?.removeEventListener('abort', this.#abort);
    if ('error' in end) {
      this.#pieces.length = 0;
      this.#reject(end.error);
    } else {
      this.#resolve(end.value);
    }
    this.#wake?.();
  }

  /** Ends the reply: nothing that comes from now on is handed out. */
  stop() {
    if (this.#end || this.#stopped) return;
    this.#stopped = true;
    this.#stop();
  }

  async text() {
    return (await this.finished).text;
  }

  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        while (this.#pieces.length > 0) yield this.#pieces.shift();
        if (this.#end) break;
        await new Promise((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = null;
      }
      if ('error' in this.#end) throw this.#end.error;
      return this.#end.value;
    } finally {
      this.stop();
    }
  }
}
