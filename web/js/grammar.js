// What answers are held to, in the worker: the second module, fetched when the first `format` comes. It knows the loaded
// model's vocabulary. Where a grammar breaks it, it is made anew: the model is not touched, but the rules of all answers
// were in its memory, and those answers end.

import { GRAMMAR } from './variants.js';
import { IrError } from './errors.js';
import { instantiate } from './module.js';

/** The module, and what it made of the vocabulary; both as promises. */
let loaded = null;
let ready = null;
/** How often it broke. */
let breaks = 0;

/**
 * Compiles a format, given as JSON, into the rules that `host.add` takes. `vocabulary` gives its bytes; it is called at once
 * or not at all. Gives `null` where another format broke the module meanwhile: ask once more.
 */
export async function compile(format, vocabulary) {
  if (!GRAMMAR) throw new IrError('unsupported', 'this build has no module for formats: make it with build.sh, or leave format out');
  ready ??= prepare(vocabulary()).catch((error) => {
    ready = null;
    throw error;
  });
  const { bindings, grammars, born } = await ready;
  if (born !== breaks) return null;
  return new Rules(bindings, unbroken(bindings, () => grammars.compile(format)));
}

async function prepare(vocabulary) {
  loaded ??= instantiate(GRAMMAR);
  let bindings;
  try {
    ({ bindings } = await loaded);
  } catch (error) {
    loaded = null;
    const why = (error.cause ?? error).message;
    throw new IrError(error.code ?? 'limit', `the module for formats cannot be loaded (${why}): try again, or leave format out`);
  }
  const grammars = unbroken(bindings, () => new bindings.Grammars(vocabulary));
  return { bindings, grammars, born: breaks };
}

/** A call of the module. Where it breaks, the module is made anew: what is in its memory then is not to be trusted. */
function unbroken(bindings, call) {
  try {
    return call();
  } catch (error) {
    if (typeof error?.code === 'string') throw error;
    breaks++;
    ready = null;
    try {
      bindings.__wbg_reset_state();
    } catch {
      // No memory for a new one: the next call breaks too, and tries again.
    }
    throw new IrError('limit', 'the format is beyond what a page can do: make it simpler', { cause: error });
  }
}

/** The module's `Rules`, as long as it has not broken: an object of before must not touch the memory of now. */
class Rules {
  constructor(bindings, inner) {
    Object.assign(this, { bindings, inner, born: breaks });
  }

  #ask(question) {
    if (this.born !== breaks) throw new IrError('limit', 'the format of another answer broke the module of formats: ask again');
    return unbroken(this.bindings, () => question(this.inner));
  }

  allowed() {
    return this.#ask((rules) => rules.allowed());
  }

  accept(token) {
    return this.#ask((rules) => rules.accept(token));
  }

  acceptText(text) {
    return this.#ask((rules) => rules.acceptText(text));
  }

  isComplete() {
    return this.#ask((rules) => rules.isComplete());
  }

  fork() {
    return new Rules(this.bindings, this.#ask((rules) => rules.fork()));
  }

  free() {
    if (this.born === breaks) this.inner.free();
  }
}
