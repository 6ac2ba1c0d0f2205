// The conversation: its messages, how they are shown, and the answer under way. The model is called here and nowhere
// else; loading is not here.

import { show } from './markdown.js';

const $ = (id) => document.getElementById(id);
/** Milliseconds between two drawings of a growing answer. */
const DRAW = 50;

export class Chat {
  /** `changed` is called when the conversation should be remembered, `failed` with an error. */
  constructor(messages, { settings, changed, failed }) {
    Object.assign(this, { messages, settings, changed, failed, ir: null, abort: null });
    this.draw();
  }

  get busy() {
    return this.abort !== null;
  }

  draw() {
    $('messages').replaceChildren(...this.messages.map((message, i) => this.#item(message, i)));
    const can = this.ir?.info().canChat !== false;
    $('hint').textContent = this.messages.length > 0 ? '' : can ? 'Say hello.' : 'This model has no chat template: it continues your text.';
  }

  #item(message, i) {
    const item = document.createElement('li');
    const who = Object.assign(document.createElement('span'), { className: 'visually-hidden' });
    if (message.role === 'user') {
      who.textContent = 'You said: ';
      item.className = 'mine';
      item.append(who, Object.assign(document.createElement('span'), { dir: 'auto', textContent: message.content }));
      return item;
    }
    who.textContent = 'The model said: ';
    item.className = 'theirs';
    const text = Object.assign(document.createElement('div'), { className: 'text', dir: 'auto' });
    item.append(who);
    if (message.thinking) item.append(thoughts(message.thinking));
    item.append(text);
    show(text, message.content);
    item.append(this.#tools(message, i === this.messages.length - 1));
    return item;
  }

  #tools(message, last) {
    const tools = Object.assign(document.createElement('div'), { className: 'tools' });
    const button = (label, act) => {
      const b = Object.assign(document.createElement('button'), { type: 'button', className: 'quiet', textContent: label });
      b.addEventListener('click', act);
      tools.append(b);
      return b;
    };
    const copy = button('Copy', async () => {
      try {
        await navigator.clipboard.writeText(message.content);
        copy.textContent = 'Copied';
      } catch {
        copy.textContent = 'The browser does not allow copying';
      }
      setTimeout(() => { copy.textContent = 'Copy'; }, 1500);
    });
    if (last) button('Regenerate', () => this.regenerate()).id = 'regenerate';
    if (message.note) tools.append(Object.assign(document.createElement('span'), { className: 'figures', textContent: message.note }));
    return tools;
  }

  async send(text) {
    this.messages.push({ role: 'user', content: text });
    await this.#answer();
  }

  async regenerate() {
    if (this.busy || !this.ir) return;
    if (this.messages.at(-1)?.role === 'assistant') this.messages.pop();
    if (this.messages.at(-1)?.role === 'user') await this.#answer();
  }

  stop() {
    this.abort?.();
  }

  clear() {
    this.stop();
    this.messages.length = 0;
    this.changed();
    this.draw();
  }

  async #answer() {
    const { ir, messages } = this;
    const reply = { role: 'assistant', content: '', thinking: '', note: '' };
    this.draw();
    this.changed();
    const live = live_item();
    try {
      const answer = this.#ask(ir, messages);
      this.abort = () => answer.stop();
      busy(true);
      await this.#follow(answer, reply, live);
      const { reason, usage } = await answer.finished;
      reply.note = figures(reason, usage);
      $('spoken').textContent = reply.content.slice(0, 2000);
    } catch (error) {
      this.failed(error);
    } finally {
      this.abort = null;
      busy(false);
      if (messages === this.messages && messages.at(-1)?.role === 'user') {
        if (reply.content || reply.thinking) messages.push(reply);
        this.changed();
        const stay = atEnd();
        this.draw();
        if (stay) toEnd();
      }
    }
  }

  #ask(ir, messages) {
    const options = this.settings.generate();
    if (ir.info().canChat === false) return ir.generate(messages.map((m) => m.content).join(''), options);
    const system = this.settings.system ? [{ role: 'system', content: this.settings.system }] : [];
    return ir.chat([...system, ...messages.map(({ role, content }) => ({ role, content }))], options);
  }

  /** Shows an answer as it grows. */
  async #follow(answer, reply, live) {
    let tokens = 0;
    let first = 0;
    let drawn = 0;
    const paint = () => {
      const stay = atEnd();
      live.update(reply);
      if (stay) toEnd();
    };
    toEnd();
    for await (const piece of answer) {
      reply.content += piece.text;
      reply.thinking += piece.thinking;
      tokens++;
      const now = performance.now();
      first ||= now;
      if (now - drawn < DRAW) continue;
      drawn = now;
      if (tokens > 1) $('speed').textContent = `${((tokens - 1) / ((now - first) / 1000)).toFixed(1)} tokens/s`;
      paint();
    }
    paint();
  }
}

function live_item() {
  const item = Object.assign(document.createElement('li'), { className: 'theirs' });
  const text = Object.assign(document.createElement('div'), { className: 'text cursor', dir: 'auto' });
  item.append(text);
  $('messages').append(item);
  let think = null;
  return {
    update({ content, thinking }) {
      if (thinking && !think) {
        think = thoughts('');
        think.open = true;
        item.prepend(think);
      }
      if (think) think.lastChild.textContent = thinking;
      show(text, content);
    },
  };
}

function thoughts(text) {
  const details = Object.assign(document.createElement('details'), { className: 'thinking' });
  details.append(Object.assign(document.createElement('summary'), { textContent: 'Reasoning' }), Object.assign(document.createElement('div'), { dir: 'auto', textContent: text }));
  return details;
}

function figures(reason, usage) {
  const { completionTokens: n, generationSeconds: s, promptTokens: p, promptSeconds: ps, cachedTokens: c } = usage;
  const rate = n > 1 && s > 0 ? `${((n - 1) / s).toFixed(1)} tokens/s` : '';
  const prompt = ps > 0 && p > c ? `prompt ${((p - c) / ps).toFixed(0)} tokens/s` : '';
  const why = { length: 'the context or the limit is full', cancelled: 'stopped' }[reason] ?? '';
  $('speed').textContent = [`${n} tokens`, rate, prompt].filter(Boolean).join(' · ');
  return [`${n} tokens`, rate, why].filter(Boolean).join(' · ');
}

function busy(on) {
  $('stop').hidden = !on;
  $('send').hidden = on;
  $('log').setAttribute('aria-busy', String(on));
  document.body.dataset.busy = String(on);
}

const scroller = () => document.querySelector('main');
function atEnd() {
  const s = scroller();
  return s.scrollHeight - s.scrollTop - s.clientHeight < 80;
}
function toEnd() {
  const s = scroller();
  s.scrollTop = s.scrollHeight;
}
