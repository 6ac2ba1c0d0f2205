// The settings dialog: sliders of the sampling, system prompt, form of the answers, device and context. Only values that a
// person moved are sent; the others stay as the model's file recommends.

const SLIDERS = [
  ['temperature', 'Temperature', 0, 2, 0.05, 0.8],
  ['topK', 'Top k', 0, 200, 1, 40],
  ['topP', 'Top p', 0.05, 1, 0.01, 0.95],
  ['minP', 'Min p', 0, 1, 0.01, 0.05],
  ['repeatPenalty', 'Repeat penalty', 1, 2, 0.01, 1],
  ['maxTokens', 'Longest answer', 0, 4096, 16, 0],
];
const $ = (id) => document.getElementById(id);

export class Settings {
  constructor(saved, changed) {
    this.values = saved && typeof saved === 'object' ? saved : {};
    this.values.sampling ??= {};
    this.recommended = {};
    this.changed = changed;
    for (const [name, label, min, max, step] of SLIDERS) this.#slider(name, label, min, max, step);
    for (const id of ['system', 'format', 'device', 'context']) {
      if (this.values[id] !== undefined) $(id).value = this.values[id];
      $(id).addEventListener('input', () => {
        this.values[id] = $(id).value;
        changed();
      });
    }
    $('defaults').addEventListener('click', () => {
      this.values.sampling = {};
      this.show();
      changed();
    });
    $('open-settings').addEventListener('click', () => $('settings').showModal());
    this.show();
  }

  #slider(name, label, min, max, step) {
    const row = document.createElement('div');
    row.className = 'slider';
    const text = Object.assign(document.createElement('label'), { htmlFor: `s-${name}`, textContent: label });
    const range = Object.assign(document.createElement('input'), { type: 'range', id: `s-${name}`, min, max, step });
    const value = Object.assign(document.createElement('output'), { htmlFor: `s-${name}`, id: `o-${name}` });
    range.addEventListener('input', () => {
      this.values.sampling[name] = Number(range.value);
      this.show();
      this.changed();
    });
    row.append(text, range, value);
    $('sliders').append(row);
  }

  /** Shows the values in force. */
  show() {
    for (const [name, , , , , usual] of SLIDERS) {
      const value = this.values.sampling[name] ?? this.recommended[name] ?? usual;
      $(`s-${name}`).value = value;
      const text = name === 'maxTokens' && value === 0 ? 'no limit' : String(Math.round(value * 100) / 100);
      $(`o-${name}`).textContent = text;
      $(`s-${name}`).setAttribute('aria-valuetext', text);
    }
  }

  /** What the model's file recommends. */
  recommend(sampling) {
    this.recommended = sampling;
    this.show();
  }

  /** Options for `Ir.load`. */
  load() {
    const context = Number.parseInt(this.values.context, 10);
    return { device: this.values.device || 'auto', ...(context >= 2 ? { contextLength: context } : {}) };
  }

  /** Options for `ir.chat`. */
  generate() {
    const { maxTokens, ...sampling } = this.values.sampling;
    const format = this.#format();
    return { ...sampling, ...(maxTokens > 0 ? { maxTokens } : {}), ...(format ? { format } : {}) };
  }

  #format() {
    const text = (this.values.format ?? '').trim();
    if (!text || text === 'json') return text;
    try {
      return { schema: JSON.parse(text) };
    } catch (error) {
      throw new Error(`the JSON schema in the settings is no JSON (${error.message}): mend it there, or leave it empty`);
    }
  }

  get system() {
    return (this.values.system ?? '').trim();
  }
}
