// Answers that are held to a format: the second module is fetched only then, holds to every kind of format, on every
// device, and where a grammar breaks it the model goes on.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { FULL, PLACES, ask, built, chats, open, unbuilt } from './harness.mjs';

const skip = unbuilt('grammar');
const [chat] = chats();
const greedy = { messages: chat.messages, temperature: 0, maxTokens: 60 };
const SCHEMA = {
  type: 'object',
  properties: { colour: { enum: ['red', 'green'] }, sizes: { type: 'array', items: { type: 'integer' }, maxItems: 3 } },
  required: ['colour', 'sizes'],
};
/** Formats, and whether a text is of that form. */
const FORMATS = {
  json: ['json', (text) => typeof JSON.parse(text) === 'object'],
  schema: [{ schema: SCHEMA }, (text) => {
    const { colour, sizes, ...rest } = JSON.parse(text);
    return ['red', 'green'].includes(colour) && sizes.length <= 3 && sizes.every(Number.isInteger) && Object.keys(rest).length === 0;
  }],
  regex: [{ regex: '(yes|no), [0-9]{3}\\.' }, (text) => /^(yes|no), [0-9]{3}\.$/.test(text)],
  lark: [{ lark: 'start: "a" ("b" | "c")+ "d"' }, (text) => /^a[bc]+d$/.test(text)],
  gbnf: [{ gbnf: 'root ::= "<" [a-z]+ ">"' }, (text) => /^<[a-z]+>$/.test(text)],
};

/** The glue of a module that breaks with a grammar that has `break` in it. */
function breaking(_, response) {
  const text = built('wasm/ir_grammar.js').toString();
  const trap = 'throw new WebAssembly.RuntimeError("unreachable");';
  const faulty = text.replace('compile(format) {', `$& if (format.includes('break')) ${trap}`);
  assert(faulty.includes(trap));
  response.writeHead(200, { 'Content-Type': 'text/javascript' }).end(faulty);
}

let it;
let fetched;
let broken;
before(async () => {
  it = await open();
  broken = await open({ routes: { '/wasm/ir_grammar.js': breaking } });
  fetched = [];
  it.context.on('request', (request) => fetched.push(new URL(request.url()).pathname));
});
after(() => Promise.all([it.close(), broken.close()]));

test('the second module is fetched with the first format, and once', { skip }, async () => {
  const grammar = () => fetched.filter((path) => path.endsWith('ir_grammar_bg.wasm')).length;
  const [plain] = (await ask(it.page, '/models/ir-tiny.gguf', { device: 'cpu' }, [greedy])).answers;
  assert.equal(plain.text, chat.reply);
  assert.equal(grammar(), 0);
  const jobs = [FORMATS.regex, FORMATS.regex].map(([format]) => ({ ...greedy, format }));
  await ask(it.page, '/models/ir-tiny.gguf', { device: 'cpu' }, jobs);
  assert.equal(grammar(), 1);
});

for (const [place, options] of Object.entries(PLACES)) {
  const unfit = skip || (options.device === 'gpu' && !FULL && 'only with IR_FULL=1') || (options.threads === 2 && unbuilt('threads')) || (options.variant && unbuilt(options.variant));
  test(`every kind of format holds: ${place}`, { skip: unfit }, async (t) => {
    const kinds = options.device === 'cpu' ? Object.keys(FORMATS) : ['regex'];
    // Against the model's own wish, and by chance: the form holds all the same. What may go on for ever is cut, so only
    // what has an end of its own must be whole.
    const jobs = kinds.flatMap((kind) => [
      { ...greedy, format: FORMATS[kind][0] },
      { ...greedy, format: FORMATS[kind][0], temperature: 1.5, seed: 3, maxTokens: 400 },
    ]).slice(0, options.device === 'cpu' ? undefined : 1);
    const { answers } = await ask(it.page, '/models/ir-tiny.gguf', options, jobs);
    answers.forEach(({ text, reason }, i) => {
      const kind = kinds[Math.floor(i / 2)];
      t.diagnostic(`${kind}: ${text.slice(0, 60)} (${reason})`);
      if (reason === 'stop' || kind === 'regex') assert(FORMATS[kind][1](text), `${kind}: ${text}`);
    });
    assert(answers.some((a) => a.reason === 'stop'));
  });
}

test('the answers of the ir command', { skip }, async () => {
  // `ir run ir-tiny "Hello!" --temp 0` with --regex, --grammar and --json-schema.
  const expected = { regex: 'yes, 200.', gbnf: '<toolelloarroth>', schema: '{"colour": "green", "sizes":  [3,-2, 2047' };
  const jobs = Object.keys(expected).map((kind) => ({ ...greedy, format: FORMATS[kind][0] }));
  const { answers } = await ask(it.page, '/models/ir-tiny.gguf', { device: 'cpu', threads: 1 }, jobs);
  Object.values(expected).forEach((text, i) => assert(answers[i].text.startsWith(text), answers[i].text));
});

test('formats that cannot be held to are refused with a sentence, and the model goes on', { skip }, async (t) => {
  const found = await it.page.evaluate(async (messages) => {
    const { Ir } = await import('/index.js');
    const ir = await Ir.load('/models/ir-tiny.gguf', { device: 'cpu', cache: false });
    const deep = (n) => `root ::= ${'('.repeat(n)}"a"${')'.repeat(n)}`;
    let nested = { type: 'string' };
    for (let i = 0; i < 3000; i++) nested = { type: 'array', items: nested };
    const wrong = {
      'no kind': 'xml', 'no object': 7, 'two kinds': { regex: 'a', gbnf: 'b' },
      'bad schema': { schema: { type: 'thing' } }, 'not to be held to': { schema: { not: { type: 'string' } } },
      'bad regex': { regex: '(' }, 'bad lark': { lark: 'start: nowhere' }, 'bad gbnf': { gbnf: 'root ::= nowhere' },
      'too long': { gbnf: `root ::= "${'a'.repeat(1 << 20)}"` }, 'too deep': { gbnf: deep(100_000) }, 'deep schema': { schema: nested },
    };
    const errors = {};
    for (const [name, format] of Object.entries(wrong)) {
      errors[name] = await ir.chat(messages, { format, maxTokens: 5 }).finished.then(() => null, (e) => ({ code: e.code, message: e.message }));
    }
    const still = await ir.chat(messages, { format: { regex: 'ok' }, temperature: 0 }).text();
    const free = await ir.chat(messages, { temperature: 0 }).text();
    ir.free();
    return { errors, still, free };
  }, chat.messages);
  for (const [name, error] of Object.entries(found.errors)) {
    t.diagnostic(`${name}: ${error?.message}`);
    assert(['request', 'unsupported', 'limit'].includes(error?.code), `${name}: ${JSON.stringify(error)}`);
    assert(error.message.length > 20 && error.message.length < 400, `${name}: ${error.message}`);
  }
  assert.equal(found.still, 'ok');
  assert.equal(found.free, chat.reply);
});

test('a grammar that breaks its module ends its own answer, and the next finds a new one', { skip }, async () => {
  const found = await broken.page.evaluate(async (messages) => {
    const { Ir } = await import('/index.js');
    const ir = await Ir.load('/models/ir-tiny.gguf', { device: 'cpu', cache: false });
    const text = (format) => ir.chat(messages, { format, temperature: 0 }).finished.then((f) => f.text, (e) => e.code);
    const out = [await text({ regex: 'ok' }), await text({ regex: 'break' }), await text({ regex: 'o+k' })];
    // One is under way, another one's compiling breaks the module: the first ends, a third finds a new module.
    const first = ir.chat(messages, { format: { regex: '(long ){30}' }, temperature: 0 });
    await first[Symbol.asyncIterator]().next();
    const [second, third] = [text({ regex: 'break' }), text({ regex: 'third' })];
    out.push(await first.finished.then((f) => f.text, (e) => `${e.code}: ${e.message}`), await second, await third);
    out.push(await text({ regex: 'ok' }), await text(undefined));
    ir.free();
    return out;
  }, chat.messages);
  assert.match(found[2], /^o+k$/);
  assert.match(found[3], /^limit: .*another answer/);
  assert.deepEqual([...found.slice(0, 2), ...found.slice(4)], ['ok', 'limit', 'limit', 'third', 'ok', chat.reply]);
});

test('rules in a long chain', { skip }, async (t) => {
  const found = await it.page.evaluate(async (messages) => {
    const { Ir } = await import('/index.js');
    const ir = await Ir.load('/models/ir-tiny.gguf', { device: 'cpu', cache: false });
    const chain = (n) => `root ::= r0\n${Array.from({ length: n }, (_, i) => `r${i} ::= "a" r${i + 1} "b"`).join('\n')}\nr${n} ::= "c"`;
    const out = {};
    for (const n of [100, 500, 1000, 1900]) {
      const answer = ir.chat(messages, { format: { gbnf: chain(n) }, maxTokens: 8, temperature: 0 });
      out[n] = await answer.finished.then((f) => f.text, (e) => `${e.code}: ${e.message}`);
    }
    out.after = await ir.chat(messages, { format: { regex: 'ok' } }).text();
    ir.free();
    return out;
  }, chat.messages);
  t.diagnostic(JSON.stringify(found));
  assert.match(found[100], /^a+$/);
  for (const text of Object.values(found)) assert.match(text, /^(a+|ok|limit: .*)$/);
  assert.equal(found.after, 'ok');
});

test('stop and abort while the module comes, and answers beside it', { skip }, async () => {
  const found = await it.page.evaluate(async (messages) => {
    const { Ir } = await import('/index.js');
    const ir = await Ir.load('/models/ir-tiny.gguf', { device: 'cpu', cache: false });
    const beside = ir.chat(messages, { temperature: 0 });
    const stopped = ir.chat(messages, { format: 'json' });
    stopped.stop();
    const control = new AbortController();
    const aborted = ir.chat(messages, { format: 'json', signal: control.signal });
    control.abort(new Error('enough'));
    const held = ir.chat(messages, { format: { regex: 'a{5}' }, temperature: 0 });
    const out = {
      beside: await beside.text(), held: await held.text(), stopped: await stopped.finished,
      aborted: await aborted.finished.catch((e) => e.message), idle: (await ir.stats()).running,
    };
    ir.free();
    return out;
  }, chat.messages);
  assert.equal(found.beside, chat.reply);
  assert.equal(found.held, 'aaaaa');
  assert.equal(found.stopped.reason, 'cancelled');
  assert.deepEqual([found.stopped.usage.promptTokens, found.stopped.usage.completionTokens], [0, 0]);
  assert.equal(found.aborted, 'enough');
  assert.equal(found.idle, 0);
});
