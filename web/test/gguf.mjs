// Model files for tests, made from others or of zeros: a header that is real, and data that need not exist anywhere.

import { Readable } from 'node:stream';
import { sendRange } from '../serve.mjs';

const ALIGN = 32;
const TYPES = { f32: [0, 1, 4], q8_0: [8, 32, 34] };
const round = (n) => Math.ceil(n / ALIGN) * ALIGN;

class Out {
  parts = [];
  length = 0;
  bytes(b) {
    this.parts.push(b);
    this.length += b.length;
  }
  u32(v) {
    const b = Buffer.alloc(4);
    b.writeUInt32LE(v);
    this.bytes(b);
  }
  u64(v) {
    const b = Buffer.alloc(8);
    b.writeBigUInt64LE(BigInt(v));
    this.bytes(b);
  }
  text(s) {
    const b = Buffer.from(s);
    this.u64(b.length);
    this.bytes(b);
  }
}

/** Where a header's parts are: its counts, where the table begins, its entries' starts and offsets' places, where it ends and data begin. */
function layout(file) {
  let at = 8;
  const u32 = () => file.readUInt32LE((at += 4) - 4);
  const u64 = () => Number(file.readBigUInt64LE((at += 8) - 8));
  const text = () => {
    const n = u64();
    return file.toString('utf8', at, (at += n));
  };
  const sizes = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
  const skip = (type) => {
    if (type === 8) text();
    else if (type === 9) {
      const inner = u32();
      for (let n = u64(); n > 0; n--) skip(inner);
    } else at += sizes[type];
  };
  const [nTensors, nMeta] = [u64(), u64()];
  for (let i = 0; i < nMeta; i++) {
    text();
    skip(u32());
  }
  const table = at;
  const [entries, offsets] = [[], []];
  for (let i = 0; i < nTensors; i++) {
    entries.push(at);
    text();
    const dims = u32();
    at += 8 * dims + 4;
    offsets.push(at);
    at += 8;
  }
  return { nTensors, nMeta, table, entries, offsets, end: at, data: round(at) };
}

/** The model in parts of so many tensors, as `ir split` writes it. */
export function split(file, shares) {
  const { nTensors, nMeta, table, entries, offsets, end, data } = layout(file);
  const bounds = [...offsets.map((at) => Number(file.readBigUInt64LE(at))), file.length - data];
  return shares.map((share, no) => {
    const out = new Out();
    const first = shares.slice(0, no).reduce((a, b) => a + b, 0);
    const key = (name, type, value) => {
      out.text(name);
      out.u32(type);
      out.bytes(value);
    };
    const little = (n, bytes) => {
      const b = Buffer.alloc(bytes);
      b.writeUIntLE(n, 0, bytes);
      return b;
    };
    out.bytes(Buffer.from('GGUF'));
    out.u32(3);
    out.u64(share);
    out.u64(3 + (no === 0 ? nMeta : 0));
    if (no === 0) out.bytes(file.subarray(24, table));
    key('split.no', 2, little(no, 2));
    key('split.count', 2, little(shares.length, 2));
    key('split.tensors.count', 5, little(nTensors, 4));
    for (let i = first; i < first + share; i++) {
      const entry = Buffer.from(file.subarray(entries[i], entries[i + 1] ?? end));
      entry.writeBigUInt64LE(BigInt(bounds[i] - bounds[first]), entry.length - 8);
      out.bytes(entry);
    }
    out.bytes(Buffer.alloc(round(out.length) - out.length));
    const tensors = share > 0 ? file.subarray(data + bounds[first], data + bounds[first + share]) : Buffer.alloc(0);
    return Buffer.concat([...out.parts, tensors]);
  });
}

/**
 * The same model with an unused tensor of `bytes` zeros before all others, so that these lie that much further back:
 * `{head, pad, tail}`, to be fed one after the other.
 */
export function padded(file, bytes) {
  const { nTensors, table, offsets, end, data } = layout(file);
  const rows = bytes / (4 * 1024);
  const entry = new Out();
  entry.text('padding.input_scale');
  entry.u32(2);
  entry.u64(1024);
  entry.u64(rows);
  entry.u32(TYPES.f32[0]);
  entry.u64(0);
  const head = Buffer.from(file.subarray(0, end));
  head.writeBigUInt64LE(BigInt(nTensors + 1), 8);
  for (const at of offsets) head.writeBigUInt64LE(head.readBigUInt64LE(at) + BigInt(bytes), at);
  const all = Buffer.concat([head.subarray(0, table), ...entry.parts, head.subarray(table)]);
  return { head: Buffer.concat([all, Buffer.alloc(round(all.length) - all.length)]), pad: bytes, tail: file.subarray(data) };
}

/** A Llama of zeros in Q8_0: `{head, zeros}`. Its tokenizer knows the bytes. */
export function zeros({ layers = 8, width = 1024, hidden = 4096, vocabulary = 32000, context = 256 } = {}) {
  const meta = new Out();
  let nMeta = 0;
  const key = (name, type) => {
    nMeta++;
    meta.text(name);
    meta.u32(type);
  };
  const string = (name, value) => {
    key(name, 8);
    meta.text(value);
  };
  const number = (name, value) => {
    key(name, 4);
    meta.u32(value);
  };
  string('general.architecture', 'llama');
  string('general.name', 'zeros');
  number('llama.block_count', layers);
  number('llama.context_length', context);
  number('llama.embedding_length', width);
  number('llama.feed_forward_length', hidden);
  number('llama.attention.head_count', width / 64);
  number('llama.attention.head_count_kv', width / 64);
  key('llama.attention.layer_norm_rms_epsilon', 6);
  const epsilon = Buffer.alloc(4);
  epsilon.writeFloatLE(1e-5);
  meta.bytes(epsilon);
  string('tokenizer.ggml.model', 'llama');
  const tokens = Array.from({ length: vocabulary }, (_, i) => i < 3 ? ['<unk>', '<s>', '</s>'][i] : i < 259 ? `<0x${(i - 3).toString(16).toUpperCase().padStart(2, '0')}>` : `t${i}`);
  key('tokenizer.ggml.tokens', 9);
  meta.u32(8);
  meta.u64(vocabulary);
  tokens.forEach((t) => meta.text(t));
  key('tokenizer.ggml.scores', 9);
  meta.u32(6);
  meta.u64(vocabulary);
  meta.bytes(Buffer.alloc(4 * vocabulary));
  key('tokenizer.ggml.token_type', 9);
  meta.u32(5);
  meta.u64(vocabulary);
  tokens.forEach((_, i) => meta.u32(i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1));

  const table = new Out();
  let [nTensors, at] = [0, 0];
  const tensor = (name, dims, type) => {
    const [code, block, size] = TYPES[type];
    nTensors++;
    table.text(name);
    table.u32(dims.length);
    dims.forEach((d) => table.u64(d));
    table.u32(code);
    table.u64(at);
    at += round((dims.reduce((a, b) => a * b) / block) * size);
  };
  tensor('token_embd.weight', [width, vocabulary], 'q8_0');
  for (let i = 0; i < layers; i++) {
    for (const norm of ['attn_norm', 'ffn_norm']) tensor(`blk.${i}.${norm}.weight`, [width], 'f32');
    for (const part of ['attn_q', 'attn_k', 'attn_v', 'attn_output']) tensor(`blk.${i}.${part}.weight`, [width, width], 'q8_0');
    for (const part of ['ffn_gate', 'ffn_up']) tensor(`blk.${i}.${part}.weight`, [width, hidden], 'q8_0');
    tensor(`blk.${i}.ffn_down.weight`, [hidden, width], 'q8_0');
  }
  tensor('output_norm.weight', [width], 'f32');

  const head = new Out();
  head.bytes(Buffer.from('GGUF'));
  head.u32(3);
  head.u64(nTensors);
  head.u64(nMeta);
  const bytes = Buffer.concat([...head.parts, ...meta.parts, ...table.parts]);
  return { head: Buffer.concat([bytes, Buffer.alloc(round(bytes.length) - bytes.length)]), zeros: at };
}

const nothing = Buffer.alloc(1 << 20);

/** What a server answers for a file of `zeros()`. */
export function sendZeros({ head, zeros }) {
  const size = head.length + zeros;
  return (request, response) => sendRange(request, response, size, (start, end) => Readable.from((function* () {
    for (let at = start; at <= end;) {
      const part = at < head.length ? head.subarray(at, end + 1) : nothing.subarray(0, Math.min(nothing.length, end + 1 - at));
      yield part;
      at += part.length;
    }
  })()));
}

/** The same file with another text for a token: for models that answer what a test wants. */
export function retold(file, token, text) {
  const mark = Buffer.from('tokenizer.ggml.tokens');
  let at = file.indexOf(mark) + mark.length + 4 + 4 + 8;
  for (let i = 0; i < token; i++) at += 8 + Number(file.readBigUInt64LE(at));
  const old = Number(file.readBigUInt64LE(at));
  const fresh = new Out();
  fresh.text(text);
  const { end, data } = layout(file);
  const head = Buffer.concat([file.subarray(0, at), ...fresh.parts, file.subarray(at + 8 + old, end)]);
  return Buffer.concat([head, Buffer.alloc(round(head.length) - head.length), file.subarray(data)]);
}
