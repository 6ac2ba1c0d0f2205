// What the browser's GPU offers, and what wgpu does not ask for by itself: subgroups, and the fast adapter of two.

/** Every device that was opened, to be destroyed with the engine. */
const devices = new Set();

/** Lets wgpu's own requests ask for more. Call once, before the module starts. */
export function widenRequests() {
  const gpu = globalThis.GPU?.prototype;
  const adapter = globalThis.GPUAdapter?.prototype;
  if (!gpu || !adapter) return;
  const { requestAdapter } = gpu;
  gpu.requestAdapter = function (options = {}) {
    return requestAdapter.call(this, { powerPreference: 'high-performance', ...options });
  };
  const { requestDevice } = adapter;
  adapter.requestDevice = async function (descriptor = {}) {
    const features = new Set(descriptor.requiredFeatures ?? []);
    if (this.features.has('subgroups')) features.add('subgroups');
    const device = await requestDevice.call(this, { ...descriptor, requiredFeatures: [...features] });
    devices.add(device);
    return device;
  };
}

/** What there is: `null` without an adapter. `software` adapters compute on the CPU, more slowly than the engine itself. */
export async function probe() {
  let adapter = null;
  try {
    adapter = (await navigator.gpu?.requestAdapter()) ?? null;
  } catch {
    // A browser that refuses is a browser without a GPU.
  }
  if (!adapter) return null;
  const { info } = adapter;
  return {
    software: Boolean(info?.isFallbackAdapter ?? adapter.isFallbackAdapter),
    subgroups: adapter.features.has('subgroups'),
    name: info?.description || [info?.vendor, info?.architecture].filter(Boolean).join(' ') || 'GPU',
  };
}

/** Milliseconds between two questions at first, and after which nothing is asked any more. */
const [OFTEN, LONG] = [0.15, 16];
/** What a worker sleeps on; `null` where the browser has none. Memory of this kind is there without isolation, too. */
const cell = (() => {
  try {
    return new Int32Array(new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }).buffer);
  } catch {
    return null;
  }
})();

/**
 * Waits for a step of the GPU. A browser looks only every two milliseconds or so whether the GPU is done, and whenever
 * something is submitted: so nothing is, at intervals that grow with the step.
 */
export async function awaitStep(step, nextTurn) {
  if (!cell) return step;
  let under = true;
  const ended = () => {
    under = false;
  };
  step.then(ended, ended);
  const began = performance.now();
  await nextTurn();
  for (let took = 0; under && took < LONG; took = performance.now() - began) {
    Atomics.wait(cell, 0, 0, Math.max(OFTEN, took / 8));
    await nextTurn();
    if (under) for (const device of devices) device.queue.submit([]);
    await nextTurn();
  }
  return step;
}

/** Gives all device memory back. */
export function destroyDevices() {
  for (const device of devices) device.destroy();
  devices.clear();
}
