// Speed in Chromium: this engine against @wllama/wllama (llama.cpp as WebAssembly), the same files, the same
// prompts, in turns in one page. Needs `build.sh` to have run. Usage:
//   node bench.mjs [--threads 1,2] [--prompt N] [--generate N] [--rounds N] [--alone | --gpu | --chains] MODEL.gguf...
// Rates are medians over the rounds, in tokens per second; the first round is not counted. --alone leaves wllama out; --gpu
// measures this engine alone on the browser's GPU, a software one where there is no other; --chains there, against itself with
// chains of one: no token follows another on the GPU before the host has heard of that. Of this engine the page's longest frame
// while it generates is shown too, the median of the rounds. IR_CHROMIUM_ARGS="--flag ..." are more flags for Chromium, which
// needs some to find a GPU without a display.

import { execFileSync } from 'node:child_process';
import { createReadStream, existsSync, mkdirSync, statSync } from 'node:fs';
import { basename, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { open } from './test/harness.mjs';

const PEER = '@wllama/wllama@3.8.1';
const WARM = 1;
const number = (text, name) => {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 1) throw new Error(`--${name} must be a whole number above 0`);
  return n;
};

const { values, positionals: models } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string', default: '1,2' },
    prompt: { type: 'string', default: '256' },
    generate: { type: 'string', default: '48' },
    rounds: { type: 'string', default: '5' },
    alone: { type: 'boolean', default: false },
    gpu: { type: 'boolean', default: false },
    chains: { type: 'boolean', default: false },
  },
});
if (models.length === 0) throw new Error('name the GGUF files to measure');
const onGpu = values.gpu || values.chains;
const alone = values.alone || onGpu;
const threads = onGpu ? [1] : values.threads.split(',').map((n) => number(n, 'threads'));
const [nPrompt, nGenerate, rounds] = ['prompt', 'generate', 'rounds'].map((name) => number(values[name], name));

const send = (file, type) => (_, response) => {
  response.writeHead(200, { 'Content-Type': type, 'Content-Length': statSync(file).size });
  createReadStream(file).pipe(response);
};
const routes = Object.fromEntries(models.map((m) => [`/bench/${basename(m)}`, send(m, 'application/octet-stream')]));
if (!alone) {
  const folder = fileURLToPath(new URL('../target/web-bench', import.meta.url));
  const esm = join(folder, 'node_modules/@wllama/wllama/esm');
  if (!existsSync(esm)) {
    mkdirSync(folder, { recursive: true });
    execFileSync('npm', ['install', '--no-save', '--prefix', folder, PEER], { stdio: 'inherit' });
  }
  routes['/peer/index.js'] = send(join(esm, 'index.js'), 'text/javascript');
  routes['/peer/wllama.wasm'] = send(join(esm, 'wasm/wllama.wasm'), 'application/wasm');
}

/** In the page: loads a model with an engine; gives what runs one prompt: `[prompt, decode, tokens, longest frame in ms]`. */
async function prepare({ who, url, device, threads, context, chain }) {
  globalThis.bench ??= {};
  if (who !== 'wllama') {
    const { Ir } = await import('/index.js');
    const ir = await Ir.load(url, { device, threads, chain, contextLength: context, cache: false });
    /** Draws on, and measures the gaps. */
    const frames = () => {
      let [longest, last, on] = [0, performance.now(), true];
      const tick = (now) => {
        [longest, last] = [Math.max(longest, now - last), now];
        if (on) requestAnimationFrame(tick);
      };
      requestAnimationFrame(tick);
      return () => {
        on = false;
        return Math.max(longest, performance.now() - last);
      };
    };
    globalThis.bench[who] = {
      name: who === 'ir' ? ir.info().device.name : who,
      end: () => ir.free(),
      run: async (prompt, generate) => {
        const answer = ir.generate(prompt, { maxTokens: generate, temperature: 0, ignoreEos: true });
        let longest = null;
        // The first token comes with the prompt.
        for await (const piece of answer) longest ??= piece.token !== undefined ? frames() : null;
        const frame = longest?.();
        const { usage } = await answer.finished;
        const computed = usage.promptTokens - usage.cachedTokens;
        return [computed / usage.promptSeconds, (usage.completionTokens - 1) / usage.generationSeconds, computed, frame];
      },
    };
  } else {
    const { Wllama } = await import('/peer/index.js');
    const quiet = { debug() {}, log() {}, warn() {}, error: console.error };
    const peer = new Wllama({ default: '/peer/wllama.wasm' }, { logger: quiet, suppressNativeLog: true });
    const blob = await (await fetch(url)).blob();
    await peer.loadModel([blob], { n_threads: threads, n_ctx: context, n_batch: 512, n_gpu_layers: 0 });
    globalThis.bench[who] = {
      name: `wllama (${peer.isMultithread() ? peer.getNumThreads() : 1} threads)`,
      end: () => peer.exit(),
      run: async (prompt, generate) => {
        const options = { prompt, max_tokens: generate, temperature: 0, ignore_eos: true, stream: false };
        const { timings } = await peer.createCompletion(options);
        const tokens = timings.prompt_n;
        return [tokens / timings.prompt_ms * 1000, timings.predicted_per_second, tokens];
      },
    };
  }
  return globalThis.bench[who].name;
}

/** Words that no round before had, so that neither engine can use what it has computed already. */
function text(round) {
  const words = Array.from({ length: nPrompt }, (_, i) => String.fromCharCode(97 + (i * 7 + round * 5) % 26));
  return `${round} ${words.join(' ')}`.slice(0, 2 * nPrompt);
}

const median = (all) => [...all].sort((a, b) => a - b)[all.length >> 1];
const ONE = 'chains of one';
const who = values.chains ? ['ir', ONE] : alone ? ['ir'] : ['ir', 'wllama'];
const context = Math.max(1024, 2 * (nPrompt + nGenerate));
const { page, close } = await open({ routes, args: (process.env.IR_CHROMIUM_ARGS ?? '').split(' ').filter(Boolean) });
try {
  const cores = await page.evaluate(() => navigator.hardwareConcurrency);
  console.log(`Chromium with ${cores} cores; prompts of about ${nPrompt} tokens, ${nGenerate} generated, ${rounds} rounds`);
  for (const model of models) {
    for (const n of threads) {
      const rates = {};
      for (const engine of who) {
        const where = { device: onGpu ? 'gpu' : 'cpu', threads: n, chain: engine === ONE ? 1 : undefined };
        const name = await page.evaluate(prepare, { who: engine, url: `/bench/${basename(model)}`, context, ...where });
        rates[engine] = { name, prompt: [], decode: [], frame: [] };
      }
      for (let round = 0; round < rounds + WARM; round++) {
        for (const engine of who) {
          const job = [engine, text(round), nGenerate];
          const [prompt, decode, , frame] = await page.evaluate(([w, t, g]) => globalThis.bench[w].run(t, g), job);
          if (round < WARM) continue;
          rates[engine].prompt.push(prompt);
          rates[engine].decode.push(decode);
          if (frame !== undefined) rates[engine].frame.push(frame);
        }
      }
      for (const engine of who) await page.evaluate((w) => globalThis.bench[w].end(), engine);
      report(basename(model, extname(model)), n, rates);
    }
  }
} finally {
  await close();
}

function report(model, n, rates) {
  const place = onGpu ? 'GPU' : `${n} thread${n > 1 ? 's' : ''}`;
  const line = (kind, digits, unit, more) => {
    const parts = who.filter((w) => rates[w][kind].length > 0).map((w) => `${rates[w].name} ${median(rates[w][kind]).toFixed(digits)}${unit}`);
    console.log(`${model}, ${place}, ${kind === 'frame' ? 'longest frame' : kind}: ${parts.join(', ')}${more}`);
  };
  for (const kind of ['prompt', 'decode']) {
    line(kind, 1, '', who.length > 1 ? `, ${(median(rates.ir[kind]) / median(rates[who[1]][kind])).toFixed(2)}x` : '');
  }
  line('frame', 0, ' ms', '');
}
