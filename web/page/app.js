// The page: opens models, shows states, and ties conversation, settings and memory together.

import { Ir, IrError } from './index.js';
import { parseName } from './hub.js';
import { Chat } from './chat.js';
import { Settings } from './settings.js';
import { lasting, recall, remember, soundMessages } from './store.js';

const $ = (id) => document.getElementById(id);
const saved = recall();
const settings = new Settings(saved.settings, keep);
const chat = new Chat(soundMessages(saved.messages), { settings, changed: keep, failed });
let ir = null;
/** What was opened last, where it can be opened again after a reload: `{url}` or `{key}`. */
let source = saved.source ?? null;
let loading = null;

function keep() {
  if (!remember({ messages: chat?.messages ?? [], settings: settings?.values ?? {}, source })) {
    notice('This browser keeps nothing (a private window, or no room): the conversation ends with the page.');
  }
}

function state(name) {
  document.body.dataset.state = name;
  for (const id of ['change', 'new-chat']) $(id).hidden = name !== 'chat';
  $('model').hidden = name !== 'chat';
  $('back').hidden = !ir;
  if (name === 'chat') $('input').focus();
}

function notice(text) {
  $('notice').textContent = text;
  $('notice').hidden = !text;
}

function failed(error) {
  if (error?.name === 'AbortError') return;
  const text = error instanceof IrError || error instanceof Error ? error.message : String(error);
  $('error-text').textContent = text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.');
  $('error').hidden = false;
  if (['lost', 'closed', 'internal', 'device'].includes(error?.code) && ir) {
    ir.free();
    ir = null;
    chat.ir = null;
    state('empty');
  }
}

/** The page's policy holds in the worker too: one made from a blob inherits it, whatever the server sends. */
function createWorker() {
  const script = `import ${JSON.stringify(new URL('./worker.js', import.meta.url).href)};`;
  const url = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
  const worker = new Worker(url, { type: 'module', name: 'ir' });
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  return worker;
}

/** Loads a model; `again` is how it can be found after a reload, or `null`. */
async function open(from, again, options = {}) {
  if (loading) return;
  loading = new AbortController();
  $('error').hidden = true;
  notice('');
  ir?.free();
  ir = null;
  chat.ir = null;
  $('loading-title').textContent = `Loading ${label(from)}`;
  progress({ loaded: 0, total: 0 });
  state('loading');
  $('cancel').focus();
  const notices = [];
  try {
    ir = await Ir.load(from, {
      ...settings.load(), ...options, createWorker, signal: loading.signal,
      onProgress: progress,
      onNotice: (n) => notices.push(n),
    });
    source = again;
    opened(notices);
  } catch (error) {
    state('empty');
    failed(error);
    listKept();
  } finally {
    loading = null;
  }
}

function label(from) {
  if (Array.isArray(from)) return from.length > 1 ? `${from[0].name} and ${from.length - 1} more` : label(from[0]);
  if (from instanceof Blob) return from.name;
  return from.name ?? String(from).split('/').pop();
}

function opened(notices) {
  const info = ir.info();
  chat.ir = ir;
  $('model-name').textContent = info.name ?? 'model';
  $('model-name').title = info.name ?? '';
  $('model-device').textContent = info.device.kind === 'gpu' ? 'GPU' : 'CPU';
  $('model-device').title = info.device.name;
  settings.recommend(info.sampling);
  about(info, notices);
  notice(notices.filter((n) => n.code === 'memory-only').map((n) => n.message).join(' '));
  $('speed').textContent = `${info.device.name} · context of ${info.contextLength} tokens`;
  state('chat');
  chat.draw();
  keep();
}

function about(info, notices) {
  const rows = [
    ['Model', [info.name, info.architecture, info.sizeLabel].filter(Boolean).join(' · ')],
    ['File', bytes(info.fileBytes)],
    ['Runs on', `${info.device.name}; module with ${info.device.build}`],
    ...notices.map((n) => ['Note', n.message]),
    ['Isolated', globalThis.crossOriginIsolated ? 'yes: threads are possible' : 'no: the CPU has one thread'],
    ['Privacy', 'The page may fetch from its own address only. Messages are computed and kept on this device.'],
  ];
  $('about').replaceChildren(...rows.flatMap(([term, text]) => [
    Object.assign(document.createElement('dt'), { textContent: term }),
    Object.assign(document.createElement('dd'), { textContent: text }),
  ]));
}

function bytes(n) {
  return n >= 1e9 ? `${(n / 1e9).toFixed(2)} GB` : `${(n / 1e6).toFixed(1)} MB`;
}

function progress({ loaded, total, bytesPerSecond, cached }) {
  if (total > 0) $('bar').value = loaded / total;
  else $('bar').removeAttribute('value');
  const rate = bytesPerSecond > 0 ? ` · ${bytes(bytesPerSecond)}/s` : '';
  $('progress-text').textContent = total > 0
    ? `${bytes(loaded)} of ${bytes(total)}${rate}${cached ? ' · from this browser' : ''}`
    : 'Starting the engine';
}

function openUrl(text) {
  let url;
  try {
    // The page's policy lets it fetch from its own address only, and the library says so.
    if (parseName(text)) return void open(text, { url: text });
    url = new URL(text, document.baseURI);
  } catch (error) {
    if (error instanceof IrError) return void failed(error);
    failed(new Error(`${text} is no address: paste one that begins with https://`));
    return;
  }
  open(url.href, { url: url.href });
}

const TINY = new URL('models/ir-tiny.gguf', document.baseURI).href;

async function listKept() {
  const entries = await Ir.cache.list();
  $('kept').hidden = entries.length === 0;
  $('kept-list').replaceChildren(...entries.map(keptItem));
}

function keptItem(entry) {
  const item = document.createElement('li');
  const what = Object.assign(document.createElement('span'), { className: 'what' });
  const whole = entry.parts > 1 ? `${bytes(entry.size)} in ${entry.parts} parts` : bytes(entry.size);
  const part = entry.complete ? whole : `${bytes(entry.stored)} of ${whole}, not whole yet`;
  what.append(Object.assign(document.createElement('b'), { textContent: entry.name }), Object.assign(document.createElement('small'), { textContent: part }));
  const use = Object.assign(document.createElement('button'), { type: 'button', textContent: entry.complete ? 'Open' : 'Go on' });
  use.addEventListener('click', () => (entry.source ? openUrl(entry.source) : open(entry, { key: entry.key, name: entry.name })));
  const drop = Object.assign(document.createElement('button'), { type: 'button', className: 'quiet', textContent: 'Delete' });
  drop.setAttribute('aria-label', `Delete ${entry.name}`);
  drop.addEventListener('click', async () => {
    await Ir.cache.delete(entry.key).catch(failed);
    listKept();
  });
  if (!entry.complete && !entry.source) use.hidden = true;
  item.append(what, use, drop);
  return item;
}

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  Object.assign(document.createElement('a'), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function exportChat(kind) {
  const { messages } = chat;
  const system = settings.system ? [{ role: 'system', content: settings.system }] : [];
  if (kind === 'json') {
    const all = [...system, ...messages.map(({ role, content, thinking }) => ({ role, content, ...(thinking ? { reasoning_content: thinking } : {}) }))];
    download('conversation.json', 'application/json', JSON.stringify({ model: ir?.info().name, messages: all }, null, 2));
  } else {
    const title = { user: 'You', assistant: 'Model', system: 'System prompt' };
    download('conversation.md', 'text/markdown', [...system, ...messages].map((m) => `## ${title[m.role]}\n\n${m.content}\n`).join('\n'));
  }
}

function files() {
  const take = (list) => list.length > 0 && open([...list], null, { cache: $('keep').checked });
  $('file').addEventListener('change', () => {
    take($('file').files);
    $('file').value = '';
  });
  for (const kind of ['dragenter', 'dragover', 'dragleave', 'drop']) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      $('drop').classList.toggle('over', kind === 'dragenter' || kind === 'dragover');
      if (kind === 'drop') take(event.dataTransfer.files);
    });
  }
}

function composer() {
  const input = $('input');
  $('composer').addEventListener('submit', (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text || chat.busy || !ir) return;
    input.value = '';
    $('error').hidden = true;
    chat.send(text);
  });
  input.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      $('composer').requestSubmit();
    }
  });
  $('stop').addEventListener('click', () => chat.stop());
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && chat.busy && !$('settings').open) chat.stop();
  });
}

files();
composer();
$('tiny').addEventListener('click', () => openUrl(TINY));
$('url-form').addEventListener('submit', (event) => {
  event.preventDefault();
  if ($('url').value.trim()) openUrl($('url').value.trim());
});
$('cancel').addEventListener('click', () => loading?.abort());
$('change').addEventListener('click', () => {
  chat.stop();
  state('empty');
  listKept();
});
$('back').addEventListener('click', () => state('chat'));
$('new-chat').addEventListener('click', () => chat.clear());
$('error-close').addEventListener('click', () => { $('error').hidden = true; });
$('export-md').addEventListener('click', () => exportChat('md'));
$('export-json').addEventListener('click', () => exportChat('json'));
if (!lasting) notice('This browser keeps nothing for this page (a private window, perhaps).');
await listKept();
if (source?.url) open(source.url, source);
else if (source?.key) open(source, source);
