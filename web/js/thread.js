// A thread of the CPU engine: the same module on the same memory, working for the pool until its worker ends.

import { initSync, work } from './wasm/ir_threads.js';

self.onmessage = ({ data: { module, memory, index } }) => {
  initSync({ module, memory });
  self.postMessage('ready');
  work(index);
};
