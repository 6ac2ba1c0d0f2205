// What answers are held to, in the worker: the second module, fetched when the first `format` comes. It knows the loaded
// model's vocabulary; where a grammar breaks it, it is made anew, and the model has not been touched.

import { GRAMMAR } from './variants.js';
import { IrError } from './errors.js';
import { instantiate } from './module.js';

const METHODS = ['allowed', 'accept', 'acceptText', 'isComplete', 'fork'];

/** The module with the vocabulary in it, as a promise. */
let ready = null;
let wrapped = false;

/** Compiles a format, given as JSON, into the rules that `host.add` takes. `vocabulary` gives its bytes; it is called at once or not at all. */
export function compile(format, vocabulary) {
  if (!GRAMMAR) throw new IrError('unsupported', 'this build has no module for formats: make it with build.sh, or leave format out');
  ready ??= prepare(vocabulary()).catch((error) => {
    ready = null;
    throw error;
  });
  return ready.then((grammars) => grammars.compile(format));
}

async function prepare(vocabulary) {
  const { bindings } = await instantiate(GRAMMAR);
  const { Grammars, Rules } = bindings;
  if (!wrapped) {
    wrapped = true;
    for (const name of METHODS) Rules.prototype[name] = mending(bindings, Rules.prototype[name]);
    Grammars.prototype.compile = mending(bindings, Grammars.prototype.compile);
  }
  return mending(bindings, () => new Grammars(vocabulary))();
}

/** A call that makes the module anew where it broke: what is in its memory then is not to be trusted. */
function mending(bindings, call) {
  return function mended(...args) {
    try {
      return call.apply(this, args);
    } catch (error) {
      if (typeof error?.code === 'string') throw error;
      bindings.__wbg_reset_state();
      ready = null;
      throw new IrError('limit', 'the format is beyond what a page can do: make it simpler', { cause: error });
    }
  };
}
