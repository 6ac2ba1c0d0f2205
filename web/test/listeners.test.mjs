// Calls leave nothing behind on the signal they were given, however they end. Needs no browser: the worker is a stand-in that
// answers each command as the real one does.

import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { Ir } from '../js/index.js';

const CALLS = 10_000;

/** Answers at once, or never where it is `mute`; a stop is answered with the end that it asks for. */
class StandIn {
  mute = false;
  #say = (data) => queueMicrotask(() => this.onmessage({ data }));

  postMessage({ id, command, target }) {
    const done = { type: 'done', text: '', thinking: '', reason: 'stop', usage: {} };
    if (command === 'stop') this.#say({ id: target, ...done, reason: 'cancelled' });
    else if (command === 'generate' && !this.mute) {
      this.#say({ id, type: 'token', text: 'a', thinking: '', token: 1 });
      this.#say({ id, ...done });
    } else if (command === 'load') this.#say({ id, type: 'value', value: { name: 'm', info: {} } });
    else if (id && !this.mute) this.#say({ id, type: 'value', value: null });
  }

  terminate() {}
}

const load = async (worker, signal) => Ir.load(new Blob([]), { createWorker: () => worker, signal });
const listeners = (signal) => getEventListeners(signal, 'abort').length;

test('finished calls leave no listener', async () => {
  const { signal } = new AbortController();
  const ir = await load(new StandIn(), signal);
  assert.equal(listeners(signal), 0, 'of the load');
  for (let i = 0; i < CALLS; i++) {
    if (i % 2 === 0) await ir.generate('a', { signal }).finished;
    else await ir.tokenize('a', { signal });
  }
  assert.equal(listeners(signal), 0);
  ir.free();
});

test('aborted calls leave no listener', async () => {
  const worker = new StandIn();
  const ir = await load(worker);
  worker.mute = true;
  const signals = [];
  for (let i = 0; i < CALLS; i++) {
    const controller = new AbortController();
    signals.push(controller.signal);
    const call = i % 2 === 0 ? ir.generate('a', { signal: controller.signal }).finished : ir.tokenize('a', { signal: controller.signal });
    assert.equal(listeners(controller.signal), 1, 'it listens while it runs');
    controller.abort();
    await assert.rejects(call, { name: 'AbortError' });
  }
  assert.equal(signals.reduce((n, signal) => n + listeners(signal), 0), 0);
  ir.free();
});

test('a call that fails, or is given up with its model, leaves no listener', async () => {
  const worker = new StandIn();
  const { signal } = new AbortController();
  const ir = await load(worker);
  worker.mute = true;
  const calls = [ir.generate('a', { signal }).finished, ir.tokenize('a', { signal }), ir.stats({ signal })];
  assert.equal(listeners(signal), 3);
  ir.free();
  for (const call of calls) await assert.rejects(call, { code: 'closed' });
  assert.equal(listeners(signal), 0);
});
