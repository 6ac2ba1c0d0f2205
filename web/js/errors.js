// The one error of this library: `code` for programs, `message` for people. Nothing else is here.

/** @typedef {import('./index').IrErrorCode} IrErrorCode */

export class IrError extends Error {
  /** @param {IrErrorCode} code @param {string} message @param {{cause?: unknown}} [options] */
  constructor(code, message, options) {
    super(message, options);
    this.name = 'IrError';
    this.code = code;
  }
}

/** What crosses from a worker: plain data of any thrown value. */
export function pack(error) {
  if (error instanceof WebAssembly.RuntimeError || error instanceof RangeError) {
    return {
      code: 'internal',
      message: `the engine stopped (${error.message}): most often memory ran out. Load the model again, or a smaller one`,
    };
  }
  const code = typeof error?.code === 'string' ? error.code : 'internal';
  return { code, message: String(error?.message ?? error) };
}

/** @returns {IrError} the error that `pack` took apart. */
export function unpack({ code, message }) {
  return new IrError(code, message);
}
