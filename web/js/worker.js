// The worker that owns an engine: takes commands from the page, drives the steps, sends events. Between two steps it
// looks at its queue, so that a stop takes effect after the token under way.

import { pack } from './errors.js';
import { compile } from './grammar.js';
import { awaitStep, destroyDevices, widenRequests } from './gpu.js';
import { load } from './load.js';
import { PIECE } from './source.js';

widenRequests();

let host = null;
let onGpu = false;
let stepping = false;
let running = false;
/** Commands that wait for the step under way. */
const queue = [];
/** Sequence numbers by the page's request ids, and back. */
const sequences = new Map();
const requests = new Map();
/** Requests whose format is being compiled. */
const compiling = new Set();
const loading = new AbortController();
/** The page's answers to `pull`. */
let pulled = null;

/** The usage of an answer that never began. */
const NOTHING = {
  promptTokens: 0, cachedTokens: 0, completionTokens: 0, queuedSeconds: 0, promptSeconds: 0, generationSeconds: 0,
};

const send = (id, type, more) => self.postMessage({ id, type, ...more });
const nextTurn = (() => {
  const { port1, port2 } = new MessageChannel();
  let resume;
  port1.onmessage = () => resume();
  return () => new Promise((resolve) => {
    resume = resolve;
    port2.postMessage(null);
  });
})();

/** The pieces of a page's iterable. One buffer goes back and forth, so that none are left to the collector. */
async function* pull(id) {
  let buffer = new ArrayBuffer(PIECE);
  for (;;) {
    const answer = new Promise((resolve, reject) => {
      pulled = { resolve, reject };
    });
    self.postMessage({ id, type: 'pull', buffer }, [buffer]);
    const bytes = await answer;
    if (!bytes) return;
    yield bytes;
    ({ buffer } = bytes);
  }
}

const commands = {
  async load({ id, source, options }) {
    const post = (event) => self.postMessage({ id, ...event });
    const loaded = await load(source, options, { signal: loading.signal, post, pull: () => pull(id) });
    host = loaded.host;
    onGpu = Boolean(loaded.gpu);
    const info = JSON.parse(host.info());
    // The browser's name of the adapter says more than wgpu's.
    if (loaded.gpu) info.device.name = `${loaded.gpu.name} (WebGPU, ${info.device.forms})`;
    return { name: loaded.name, info };
  },
  generate({ id, request, format }) {
    if (format === undefined) {
      commands.begin({ id, request });
      return;
    }
    compiling.add(id);
    commands.compile({ id, request, format });
  },
  compile({ id, request, format }) {
    // It was stopped meanwhile.
    if (!compiling.has(id)) return;
    // Others go on while the module comes. Without rules it broke meanwhile: once more.
    compile(format, () => host.vocabulary()).then(
      (rules) => take(rules ? { id, command: 'begin', request, rules } : { id, command: 'compile', request, format }),
      (error) => take({ id, command: 'refuse', error }),
    );
  },
  refuse({ id, error }) {
    if (compiling.delete(id)) throw error;
  },
  begin({ id, request, rules }) {
    // It was stopped meanwhile.
    if (rules && !compiling.delete(id)) {
      rules.free();
      return;
    }
    const seq = host.add(request, rules);
    sequences.set(id, seq);
    requests.set(seq, id);
    run();
  },
  stop({ target }) {
    if (compiling.delete(target)) {
      self.postMessage({ id: target, type: 'done', text: '', thinking: '', reason: 'cancelled', usage: NOTHING });
      return;
    }
    const seq = sequences.get(target);
    if (seq !== undefined) host.cancel(seq);
  },
  tokenize: ({ text, addSpecial, parseSpecial }) => host.tokenize(text, addSpecial, parseSpecial),
  detokenize: ({ tokens, special }) => host.detokenize(tokens, special),
  stats: () => JSON.parse(host.stats()),
};

/** Commands that are answered by events. */
const SILENT = ['generate', 'compile', 'begin', 'refuse'];

/** Runs a command as soon as no step is under way. */
function take(message) {
  if (stepping) queue.push(message);
  else answer(message);
}

/** Runs a command and answers it. */
async function answer(message) {
  const { id, command } = message;
  try {
    const value = await commands[command](message);
    if (!SILENT.includes(command)) send(id, 'value', { value });
  } catch (error) {
    if (command === 'load') destroyDevices();
    send(id, 'error', { error: pack(error) });
  }
}

/** Drives the engine until nothing is left to do. */
async function run() {
  if (running) return;
  running = true;
  try {
    while (!host.is_idle()) {
      stepping = true;
      const step = host.step();
      const events = JSON.parse(await (onGpu ? awaitStep(step, nextTurn) : step));
      stepping = false;
      events.forEach(report);
      await nextTurn();
      for (const message of queue.splice(0)) await answer(message);
    }
  } catch (error) {
    // The engine may be in any state: everything under way has failed.
    for (const id of requests.values()) send(id, 'error', { error: pack(error) });
    requests.clear();
    sequences.clear();
  } finally {
    running = false;
    stepping = false;
    queue.splice(0).forEach(take);
  }
}

function report(event) {
  const id = requests.get(event.seq);
  if (id === undefined) return;
  if (event.type !== 'token') {
    requests.delete(event.seq);
    sequences.delete(id);
  }
  if (event.type === 'error') send(id, 'error', { error: pack(event) });
  else self.postMessage({ id, ...event });
}

self.onmessage = ({ data }) => {
  switch (data.command) {
    case 'pulled':
      if (data.error) pulled?.reject(Object.assign(new Error(data.error.message), data.error));
      else pulled?.resolve(data.bytes);
      break;
    case 'abort':
      loading.abort();
      break;
    case 'free':
      destroyDevices();
      self.close();
      break;
    default:
      take(data);
  }
};
