// Pictures of the page in its states, to be looked at: `node test/shots.mjs FOLDER`.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { open, tinyFile } from './harness.mjs';

const out = process.argv[2] ?? 'shots';
mkdirSync(out, { recursive: true });
const half = (request, response) => {
  response.writeHead(200, { 'Content-Length': tinyFile().length });
  response.write(tinyFile().subarray(0, 900_000));
};
const it = await open({ blank: false, routes: { '/slow-7b-q4_k_m.gguf': half } });
const { page } = it;
const shot = (name) => page.screenshot({ path: join(out, `${name}.png`) });
const chat = [
  { role: 'user', content: 'What can you do? Show me a list and some code.' },
  { role: 'assistant', content: '## What I can do\n\nI run **in this page**, from a GGUF file:\n\n- *stream* an answer as it is made\n- show `code`, lists and tables\n\n```js\nconst ir = await Ir.load("model.gguf");\nfor await (const piece of ir.chat(messages)) show(piece.text);\n```\n\n| device | where |\n|---|---|\n| GPU | WebGPU |\n| CPU | SIMD, threads |\n\n> Nothing leaves this page.', note: '96 tokens · 41.3 tokens/s' },
];
try {
  for (const [name, width, height, colorScheme] of [['light', 1200, 800, 'light'], ['dark', 1200, 800, 'dark'], ['narrow', 375, 700, 'light']]) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme });
    await page.goto(it.url);
    await page.evaluate(() => localStorage.clear());
    await page.reload();
    await page.waitForTimeout(300);
    await shot(`${name}-empty`);
    await page.fill('#url', 'nothing.gguf');
    await page.click('#url-form button');
    await page.waitForSelector('#error:not([hidden])');
    await shot(`${name}-error`);
    await page.fill('#url', 'slow-7b-q4_k_m.gguf');
    await page.click('#url-form button');
    await page.waitForTimeout(1500);
    await shot(`${name}-loading`);
    await page.click('#cancel');
    await page.evaluate(([key, value]) => localStorage.setItem(key, value), ['ir-page-1', JSON.stringify({ messages: chat, settings: {}, source: null })]);
    await page.reload();
    await page.click('#tiny');
    await page.waitForSelector('[data-state=chat]');
    await page.fill('#input', 'Tell me a story, please.');
    await page.keyboard.press('Enter');
    await page.waitForTimeout(400);
    await shot(`${name}-chatting`);
    await page.waitForFunction(() => document.body.dataset.busy === 'false');
    await shot(`${name}-answered`);
    await page.click('#open-settings');
    await page.waitForTimeout(200);
    await shot(`${name}-settings`);
    await page.keyboard.press('Escape');
  }
} finally {
  await it.close();
}
