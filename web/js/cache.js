// Model files that this browser keeps: in the origin private file system, a folder of ours, two files to each: the bytes, and
// what they are as JSON. The parts of a split model are files of one set, and one entry of the list. Works in pages and
// workers; only `Writer` needs a worker.

import { IrError } from './errors.js';

const FOLDER = 'ir-models';

async function folder(create) {
  if (!globalThis.navigator?.storage?.getDirectory) {
    throw new IrError('storage', 'this browser cannot keep models here: the page must come over https or from this machine');
  }
  try {
    const root = await navigator.storage.getDirectory();
    return await root.getDirectoryHandle(FOLDER, { create });
  } catch (cause) {
    if (cause?.name === 'NotFoundError') return null;
    if (cause?.name === 'QuotaExceededError') throw refused(cause);
    const sentence = 'this browser keeps nothing for this page (a private window, perhaps)';
    throw new IrError('storage', sentence, { cause });
  }
}

/** The name of a source's entry: a hash, since addresses are no file names. */
export async function keyOf(source) {
  const bytes = new TextEncoder().encode(source);
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return [...digest.subarray(0, 16)].map((b) => b.toString(16).padStart(2, '0')).join('');
}

async function readEntry(dir, key) {
  try {
    const record = JSON.parse(await (await (await dir.getFileHandle(`${key}.json`)).getFile()).text());
    const file = await (await dir.getFileHandle(`${key}.gguf`)).getFile();
    const complete = record.complete === true && file.size === record.size;
    return { ...record, key, stored: file.size, complete, file };
  } catch {
    return null;
  }
}

/** What is kept under this key with its `file`, or `null`. */
export async function find(key) {
  const dir = await folder(false);
  return dir && readEntry(dir, key);
}

/** Everything that is kept. */
async function everything() {
  const dir = await folder(false).catch(() => null);
  const all = [];
  for await (const name of dir?.keys() ?? []) {
    const entry = name.endsWith('.json') ? await readEntry(dir, name.slice(0, -5)) : null;
    if (entry) all.push(entry);
  }
  return all;
}

/** The files of an entry of the list, in order: of a model in parts all that are there. */
export async function findAll(key) {
  const place = ({ set }) => set?.no ?? 0;
  return (await everything()).filter((e) => e.key === key || e.set?.key === key).sort((a, b) => place(a) - place(b));
}

/** Whether these files are a whole model. */
export function isWhole(files) {
  return files.length > 0 && files.every((f) => f.complete) && files.length === (files[0].set?.count ?? 1);
}

/** The entry with its `file` that was found to have this SHA-256 when it was kept, or `null`. */
export async function findSha256(sha256) {
  return (await everything()).find((e) => e.complete && e.sha256 === sha256) ?? null;
}

/**
 * The file of this SHA-256 in the store that all pages of a browser share, or `null`: Cross-Origin Storage, a proposal
 * (https://github.com/WICG/cross-origin-storage), where the browser has it and lets this page look. It has asked for one file
 * and for several by different names so far.
 */
export async function findShared(sha256) {
  const store = globalThis.navigator?.crossOriginStorage;
  const hash = { algorithm: 'SHA-256', value: sha256 };
  try {
    const handle = store.requestFileHandle ? await store.requestFileHandle(hash) : (await store.requestFileHandles([hash]))[0];
    return await handle.getFile();
  } catch {
    return null;
  }
}

/** All entries, newest first, without their files. */
export async function list() {
  const entries = new Map();
  for (const file of await everything()) {
    const key = file.set?.key ?? file.key;
    entries.set(key, [...(entries.get(key) ?? []), file]);
  }
  const all = [...entries].map(([key, files]) => {
    const { set, source, size } = files[0];
    const stored = files.reduce((sum, f) => sum + f.stored, 0);
    const added = Math.max(...files.map((f) => f.added));
    const name = set?.name ?? files[0].name;
    return { key, name, source, size: set?.size ?? size, parts: set?.count ?? 1, stored, complete: isWhole(files), added };
  });
  return all.sort((a, b) => b.added - a.added);
}

/** Removes an entry; says whether there was one. */
export async function remove(key) {
  const dir = await folder(false);
  if (!dir) return false;
  let found = false;
  // A file whose description is damaged goes by its own key alone.
  const keys = new Set([key, ...(await findAll(key)).map((f) => f.key)]);
  for (const name of [...keys].flatMap((k) => [`${k}.json`, `${k}.gguf`])) {
    try {
      await dir.removeEntry(name);
      found = true;
    } catch (cause) {
      if (cause?.name === 'NotFoundError') continue;
      throw new IrError('storage', 'this model is being written or read: stop that, then delete it', { cause });
    }
  }
  return found;
}

/** Removes every entry. */
export async function clear() {
  for (const { key } of await list()) await remove(key);
}

/** Bytes that may still be kept, as far as the browser says. */
export async function room() {
  const { quota = Infinity, usage = 0 } = (await navigator.storage?.estimate?.()) ?? {};
  return Math.max(0, quota - usage);
}

/** What was kept is not there any more. */
export class Gone extends IrError {
  constructor() {
    super('storage', 'what was kept of the file is gone: load it again');
  }
}

function refused(cause) {
  if (cause?.name === 'QuotaExceededError') return new IrError('quota', "there is no room left in this browser's storage", { cause });
  return new IrError('storage', `the cache cannot be written (${cause?.message ?? cause})`, { cause });
}

/** Writes a file as its bytes come in. */
export class Writer {
  /** Goes on after `from` bytes of what is there; 0 starts it anew. `need`: bytes that there must be room for. */
  static async open(key, record, from, need) {
    const dir = await folder(true);
    if ((await room()) < need * 1.02) {
      throw new IrError('quota', `there is no room in this browser's storage for ${(need / 1e6).toFixed(0)} MB`);
    }
    const writer = new Writer();
    writer.dir = dir;
    writer.key = key;
    writer.record = { ...record, added: Date.now(), complete: false };
    const handle = await dir.getFileHandle(`${key}.gguf`, { create: true }).catch((cause) => {
      throw refused(cause);
    });
    try {
      writer.file = await handle.createSyncAccessHandle();
    } catch (cause) {
      throw new IrError('storage', 'another tab is working with this model in the cache', { cause });
    }
    try {
      writer.file.truncate(from);
      await writer.#note();
    } catch (cause) {
      writer.file.close();
      throw refused(cause);
    }
    return writer;
  }

  async #note() {
    const handle = await this.dir.getFileHandle(`${this.key}.json`, { create: true });
    const note = await handle.createSyncAccessHandle();
    try {
      note.truncate(0);
      note.write(new TextEncoder().encode(JSON.stringify(this.record)), { at: 0 });
      note.flush();
    } finally {
      note.close();
    }
  }

  /** Writes at `offset`. Throws where the storage is full. */
  write(offset, bytes) {
    let n;
    try {
      n = this.file.write(bytes, { at: offset });
    } catch (cause) {
      throw refused(cause);
    }
    if (n !== bytes.byteLength) throw refused(new DOMException('', 'QuotaExceededError'));
  }

  /** What was kept before, from `offset` on: fills `into` as far as it goes. A `File` of it breaks with the first write. */
  read(offset, into) {
    return into.subarray(0, this.file.read(into, { at: offset }));
  }

  /** All bytes are there. */
  async complete() {
    this.file.flush();
    this.file.close();
    this.record.complete = true;
    await this.#note();
  }

  /** Keeps what there is, to be gone on with. */
  suspend() {
    this.file.flush();
    this.file.close();
  }

  /** Throws away what there is. */
  async discard() {
    this.file.close();
    await remove(this.key).catch(() => {});
  }
}
