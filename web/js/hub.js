// Names of models at the hub, as the command has them: `hf.co/user/repo[:QUANT][@revision]`, `user/repo[:QUANT]`. What a
// repository holds is asked of the hub; which of its files is meant is decided as `ir pull` does
// (`server/store/src/quant.rs`; both are held to `server/store/tests/store/choices.json`).

import { IrError } from './errors.js';

/** The hub's own address, and the names that it goes by. */
const HUB = 'https://huggingface.co';
const HOSTS = ['hf.co', 'huggingface.co', 'www.huggingface.co'];

/** What is taken where no quantisation is named, best first. */
const PREFERRED = [
  'Q4_K_M', 'Q4_K_S', 'Q4_K_L', 'Q4_K_XL', 'Q4_K', 'Q4_0', 'Q4_1', 'Q5_K_M', 'Q5_K_S', 'Q5_K', 'Q5_0', 'Q5_1', 'Q3_K_L', 'Q3_K_M',
  'Q3_K_S', 'Q3_K', 'Q6_K', 'Q8_0', 'Q2_K', 'F16', 'BF16', 'F32', 'IQ4_XS', 'IQ4_NL', 'MXFP4', 'IQ3_M',
];

/** A part of a name: nothing that an address or a folder reads otherwise. */
const PART = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,95}$/;
const isPart = (text) => PART.test(text) && !text.endsWith('.') && !text.includes('..');

/**
 * `{user, repo, tag, revision}` of a name, `null` where the text is no name of the hub's. A relative address is none: it begins
 * with `./` or `/`, or ends with `.gguf`.
 */
export function parseName(text) {
  const [first] = text.split('/');
  const named = HOSTS.includes(first.toLowerCase());
  const rest = named ? text.slice(first.length + 1) : text;
  const [, repository, tag, revision] = /^([^:@]+)(?::([^@]*))?(?:@(.*))?$/.exec(rest) ?? [];
  const parts = repository?.split('/') ?? [];
  const sound = parts.length === 2 && parts.every(isPart) && (tag === undefined || tag.split('/').every(isPart)) && (revision === undefined || isPart(revision));
  if (!sound || (!named && (first.includes('.') || /\.gguf$/i.test(repository)))) {
    if (named) throw new IrError('request', `${JSON.stringify(text)} is no model's name: give hf.co/USER/REPO, with :QUANT where one is meant`);
    return null;
  }
  return { user: parts[0], repo: parts[1], tag, revision };
}

const base = (path) => path.slice(path.lastIndexOf('/') + 1);
const same = (a, b) => a.toLowerCase() === b.toLowerCase();
const by = (key) => (a, b) => key(a) - key(b);

/** The GGUF models among files: `{stem, files, count}`. */
function groups(files) {
  const all = [];
  for (const path of files.filter((f) => /.\.gguf$/i.test(f)).sort()) {
    if (/mmproj|imatrix/i.test(base(path))) continue;
    const stem = path.slice(0, -5);
    const [, name = stem, no = 1, count = 1] = /^(.*)-(\d{5})-of-(\d{5})$/.exec(stem) ?? [];
    const group = all.find((g) => g.count > 1 && g.stem === name && g.count === Number(count));
    if (!group) all.push({ stem: name, files: [path], count: Number(count), first: Number(no) });
    else if (group.files.length + 1 === Number(no)) group.files.push(path);
  }
  return all;
}

/** Whether a group's name holds this word, not as a part of a longer one. */
function has(group, word) {
  const escaped = word.toUpperCase().replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`(?<![A-Z0-9])${escaped}(?![A-Z0-9_])`).test(group.stem.toUpperCase());
}

function label(group) {
  const found = PREFERRED.filter((q) => has(group, q)).sort(by((q) => -q.length));
  return found[0] ?? base(group.stem);
}

/** The files that a tag means, in order. */
export function choose(files, tag, place) {
  const all = groups(files);
  if (all.length === 0) {
    throw new IrError('http', `${place} holds no GGUF files: look for a repository whose name has GGUF in it`);
  }
  let chosen;
  if (tag && !same(tag, 'latest')) {
    const names = (path) => [path, base(path), path.slice(0, -5), base(path.slice(0, -5))];
    const byFile = all.find((g) => g.files.some((f) => names(f).some((n) => same(n, tag))) || same(base(g.stem), tag));
    // Not one with a prefix to the quantisation, as in UD-Q4_K_XL, that was not asked for.
    const extra = (g) => (has(g, 'UD') && !tag.toUpperCase().includes('UD') ? 1 : 0);
    const fitting = all.filter((g) => has(g, tag)).sort((a, b) => extra(a) - extra(b) || a.stem.length - b.stem.length);
    chosen = byFile ?? fitting[0];
    if (!chosen) {
      const labels = [...new Set(all.map(label))].sort().slice(0, 30);
      throw new IrError('http', `${place} has no ${tag}: it has ${labels.join(', ')}`);
    }
  } else {
    for (const q of PREFERRED) chosen ??= all.filter((g) => label(g) === q).sort(by((g) => g.stem.length))[0];
    chosen ??= all[0];
  }
  if (chosen.files.length !== chosen.count || chosen.first !== 1) {
    throw new IrError('http', `${base(chosen.stem)} is split into ${chosen.count} parts, of which not all are there: it cannot be used`);
  }
  return chosen.files;
}

/** The addresses, lengths and SHA-256 of the file that a name means, or of its parts in order. `hub`: another address of it. */
export async function resolve({ user, repo, tag, revision }, { hub = HUB, signal } = {}) {
  const root = String(hub).replace(/\/+$/, '');
  const place = `${user}/${repo}`;
  const asked = `${root}/api/models/${place}/revision/${encodeURIComponent(revision ?? 'main')}?blobs=true`;
  const answer = await description(asked, place, signal);
  const listed = Array.isArray(answer?.siblings) ? answer.siblings : [];
  const files = listed.filter((f) => typeof f?.rfilename === 'string');
  // The commit, so that all that is asked for is of one state.
  const commit = /^[0-9a-f]{7,64}$/.test(answer.sha ?? '') ? answer.sha : revision ?? 'main';
  return choose(files.map((f) => f.rfilename), tag, place).map((file) => {
    const { lfs, size } = files.find((f) => f.rfilename === file);
    const path = [user, repo, 'resolve', commit, ...file.split('/')].map(encodeURIComponent).join('/');
    const sha256 = /^[0-9a-f]{64}$/i.test(lfs?.sha256 ?? '') ? lfs.sha256.toLowerCase() : undefined;
    const bytes = lfs?.size ?? size;
    return { url: `${root}/${path}`, sha256, size: Number.isSafeInteger(bytes) ? bytes : undefined };
  });
}

async function description(url, place, signal) {
  let response;
  try {
    response = await fetch(url, { signal, credentials: 'omit', referrerPolicy: 'no-referrer' });
  } catch (cause) {
    if (signal?.aborted) throw signal.reason;
    const { host } = new URL(url);
    const sentence = `${host} cannot be asked for ${place}: check the connection, and whether this page's own policy allows it`;
    throw new IrError('network', sentence, { cause });
  }
  if (!response.ok) {
    await response.body?.cancel();
    const why = [401, 403, 404].includes(response.status) ? 'there is none that anyone may read' : 'the hub refused';
    throw new IrError('http', `${place}: ${why} (${response.status}): check the name`);
  }
  try {
    return await response.json();
  } catch (cause) {
    throw new IrError('http', `the hub describes ${place} in no known way`, { cause });
  }
}
