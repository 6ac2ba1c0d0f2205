// A thread of the CPU engine: the same module on the same memory, working for the pool until its worker ends.

import { initSync, work } from './wasm/ir_threads.js';

self.onmessage = ({ data: { module, memory } }) => {
  initSync({ module, memory });
  self.postMessage('ready');
  // It returns when a pool ends; the next one finds its threads again.
  for (;;) work();
};
