// What a source of a model consists of, in the worker: one file, or the parts of a split model. Each is
// `{name, size, sha256, checked, head(), begin()}`: `checked` is the SHA-256 that it was found to have when it was kept,
// `head()` gives it from its start, for its header alone, and `begin()` opens it to be read: `{fromCache, chunks()}`.

import * as cache from './cache.js';
import { IrError } from './errors.js';
import { resolve } from './hub.js';
import { PIECE, UrlSource, blobSource, nameOf, peek } from './source.js';

/** How the parts of a model are named. */
const PARTED = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/i;
/** Parts of a model at most; the largest models have some hundred. */
const MOST_PARTS = 1000;

/** The files of a source; `keeper` takes what is to be kept of them. */
export async function open(source, options, tools) {
  switch (source.kind) {
    case 'parts':
      return openAll(source.parts, options, tools);
    case 'cached': {
      const files = await cache.findAll(source.key);
      if (!cache.isWhole(files)) throw new IrError('source', 'this model is not in the cache any more: load it anew');
      const sha256 = each(options.sha256, files.length, 'sha256');
      return files.map((entry, i) => ({ ...fromCache(entry), sha256: sha256[i] ?? entry.sha256 }));
    }
    case 'hub': {
      const files = await resolve(source.name, { hub: options.hub, signal: tools.signal });
      const given = { sha256: each(options.sha256, files.length, 'sha256'), size: each(options.size, files.length, 'size') };
      return openAddresses(files.map(({ url, ...known }, i) => {
        const [sha256, size] = [given.sha256[i] ?? known.sha256, given.size[i] ?? known.size];
        return { url, sha256, size };
      }), options, tools);
    }
    case 'chunks': {
      const begin = async () => ({ fromCache: 0, chunks: tools.pull });
      return [{ name: options.name ?? 'model', size: options.size, sha256: one(options.sha256, 'sha256'), begin }];
    }
    default:
      return openAll([source], options, tools);
  }
}

/** An option that there is for each file: a list, or by itself where there is one. */
function each(option, n, name) {
  if (option === undefined) return Array(n).fill(undefined);
  const all = Array.isArray(option) ? option : [option];
  if (all.length === n) return all;
  throw new IrError('request', `the model has ${n} file${n > 1 ? 's' : ''}, and ${name} is given for ${all.length}: give a list of ${n}`);
}
const one = (option, name) => each(option, 1, name)[0];

/** Files or addresses. A single address of a part stands for all of them. */
async function openAll(sources, options, tools) {
  const addresses = sources.filter(({ kind }) => kind === 'url').map(({ url }) => url);
  if (addresses.length === sources.length) {
    const all = addresses.length === 1 ? partsOf(addresses[0]) : addresses;
    const [sha256, size] = ['sha256', 'size'].map((name) => each(options[name], all.length, name));
    return openAddresses(all.map((url, i) => ({ url, sha256: sha256[i], size: size[i] })), options, tools);
  }
  if (addresses.length > 0) throw new IrError('request', 'the parts of a model are all files or all addresses');
  const blobs = await Promise.all(sources.map(({ blob, handle }) => blob ?? handle.getFile()));
  return openBlobs(blobs.map((blob, i) => ({ blob, name: sources[i].name ?? blob.name ?? 'model' })), options, tools);
}

/** The addresses of all parts of a model, by that of one; the address itself where it is that of a whole file. */
function partsOf(address) {
  const url = new URL(address);
  const [folder, last] = [url.pathname.slice(0, url.pathname.lastIndexOf('/') + 1), url.pathname.split('/').pop()];
  const [, stem, no, count] = PARTED.exec(last) ?? [];
  const n = Number(count);
  if (n > MOST_PARTS) throw new IrError('request', `${last} names a model of more than ${MOST_PARTS} parts`);
  if (!stem || !/^https?:$/.test(url.protocol) || n < 2 || Number(no) < 1 || Number(no) > n) return [address];
  return Array.from({ length: n }, (_, i) => {
    url.pathname = `${folder}${stem}-${String(i + 1).padStart(5, '0')}-of-${count}.gguf`;
    return url.href;
  });
}

/** What a model in parts is called: by what the names of all parts begin with. */
export function nameOfAll(files) {
  const [, stem] = (files.length > 1 && PARTED.exec(files[0].name)) || [];
  return stem ?? files[0].name;
}

/** What files of the cache have in common: `set(i)` is what is written with the `i`-th, nothing where it is alone. */
async function setOf(files, places) {
  if (files.length === 1) return () => ({});
  const key = await cache.keyOf(places.join('\n')).catch(() => null);
  const [name, size] = [nameOfAll(files), files.reduce((sum, f) => sum + f.size, 0)];
  return (no) => ({ set: { key, no, count: files.length, name, size } });
}

/** Bytes of the files that are not kept yet, the `i`-th among them, which is from now on. */
function needOf(files, i) {
  const need = files.reduce((sum, f) => sum + (f.kept ? 0 : f.size), 0);
  files[i].kept = true;
  return need;
}

function fromCache(entry) {
  const { chunks, name, size } = blobSource(entry.file, entry.name);
  const begin = async () => ({ fromCache: size, chunks });
  return { name, size, sha256: entry.sha256, checked: entry.sha256, kept: true, head: chunks, begin };
}

/** Files from disk; kept only where that is asked. */
async function openBlobs(named, options, { keeper }) {
  const sha256 = each(options.sha256, named.length, 'sha256');
  const sizes = each(options.size, named.length, 'size');
  const places = named.map(({ name, blob }) => `file:${name}:${blob.size}:${blob.lastModified ?? 0}`);
  const files = named.map(({ name, blob }, i) => {
    if (sizes[i] !== undefined && sizes[i] !== blob.size) throw wrongSize(blob.size, sizes[i], 'choose another file');
    const { chunks } = blobSource(blob, name);
    const begin = async () => {
      const key = options.cache ? await cache.keyOf(places[i]).catch(() => null) : null;
      const record = { name, source: null, size: blob.size, validator: null, sha256: sha256[i]?.toLowerCase(), ...set(i) };
      if (key) await keeper.begin(key, record, 0, needOf(files, i));
      return { fromCache: 0, chunks };
    };
    return { name, size: blob.size, sha256: sha256[i], head: chunks, begin };
  });
  const set = await setOf(files, places);
  return files;
}

const wrongSize = (has, should, what) =>
  new IrError('integrity', `the file has ${has} bytes and should have ${should}: ${what}`);

/** Addresses: of one file, or of the parts of a model. */
async function openAddresses(wanted, options, tools) {
  const files = [];
  // Parts that are all here belong together; beside others that are fetched, each must be what the server has today.
  const kept = await Promise.all(wanted.map(async ({ url, size }) => isThis((await lookUp(url, options)).entry, size)));
  const together = kept.every(Boolean);
  for (const file of wanted) {
    tools.signal.throwIfAborted();
    const open = wanted.length > 1 ? inFile(nameOf(file.url), openPart(file, together, options, tools)) : openUrl(file, options, tools);
    files.push(await open);
  }
  const set = await setOf(files, wanted.map(({ url }) => url));
  return files.map(({ start, ...file }, i) => ({ ...file, begin: file.begin ?? (() => start(set(i), needOf(files, i))) }));
}

/** A file that is here already, wherever it came from: found by its SHA-256, which is checked again where others wrote it. */
async function openKept({ url, sha256, size }, { cache: wanted }) {
  if (!sha256 || wanted === false) return null;
  const digest = sha256.toLowerCase();
  const kept = await cache.findSha256(digest).catch(() => null);
  const shared = !kept && (await cache.findShared(digest));
  if (!kept && !shared) return null;
  const { chunks } = kept ? {} : blobSource(shared, nameOf(url));
  const file = kept
    ? fromCache(kept)
    : { name: nameOf(url), size: shared.size, kept: true, head: chunks, begin: async () => ({ fromCache: shared.size, chunks }) };
  return size === undefined || size === file.size ? { ...file, sha256 } : null;
}

/** What the cache has of an address: `{key, entry}`. */
async function lookUp(url, options) {
  const key = options.cache === false ? null : await cache.keyOf(url).catch(() => null);
  return { key, entry: key && (await cache.find(key).catch(() => null)) };
}

/** Whether what is kept under an address is the file that is wanted. */
const isThis = (entry, size) => entry?.complete && (size === undefined || size === entry.size);

/** `anew`: what is kept whole under the address is of another version. */
async function openUrl({ url, sha256, size, anew }, options, { signal, keeper }) {
  const here = await openKept({ url, sha256, size }, options);
  if (here) return here;
  const found = await lookUp(url, options);
  const { key } = found;
  const entry = anew && found.entry?.complete ? null : found.entry;
  if (isThis(entry, size)) return { ...fromCache(entry), sha256: sha256 ?? entry.sha256 };
  const remote = new UrlSource(url, { signal, size });
  const from = await remote.open(entry ?? undefined);
  if (size !== undefined && remote.size !== size) {
    remote.close();
    throw wrongSize(remote.size, size, 'check the address');
  }
  const record = { name: remote.name, source: url, size: remote.size, validator: remote.validator, sha256: sha256?.toLowerCase() };
  const start = async (set, need) => {
    const kept = key && (await keeper.begin(key, { ...record, ...set }, from, need - from));
    return {
      fromCache: from,
      async *chunks() {
        if (from > 0 && kept) yield* keeper.before(from, new Uint8Array(PIECE));
        else if (from > 0) yield* blobSource(entry.file.slice(0, from)).chunks();
        yield* remote.chunks();
      },
    };
  };
  return { name: remote.name, size: remote.size, sha256, validator: remote.validator, start };
}

/** A part of a model: its length and header are asked for now, and the whole when its turn comes. */
async function openPart({ url, sha256, size }, together, options, tools) {
  const here = await openKept({ url, sha256, size }, options);
  if (here) return here;
  const { entry } = await lookUp(url, options);
  const whole = isThis(entry, size);
  const cached = () => ({ ...fromCache(entry), sha256: sha256 ?? entry.sha256 });
  if (whole && (together || sha256)) return cached();
  const seen = await peek(url, { signal: tools.signal, size });
  if (size !== undefined && seen.size !== size) throw wrongSize(seen.size, size, 'check the address');
  if (whole && seen.size === entry.size && (seen.validator ?? null) === (entry.validator ?? null)) return cached();
  // Without a validator nothing says that the header is of the file that is kept, so no SHA-256 is written beside that.
  const asked = { url, sha256: seen.validator ? sha256 : undefined, size: seen.size, anew: whole };
  const start = async (set, need) => {
    const file = await openUrl(asked, options, tools);
    if (file.validator !== undefined && file.validator !== seen.validator) {
      throw new IrError('integrity', 'the file on the server changed while it was loading: load it again');
    }
    return file.begin ? file.begin() : file.start(set, need);
  };
  return { name: seen.name, size: seen.size, sha256, head: seen.head, start };
}

/** What went wrong with one of several files says which. */
export async function inFile(name, work) {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof IrError)) throw error;
    throw new IrError(error.code, `${name}: ${error.message}`, { cause: error });
  }
}
