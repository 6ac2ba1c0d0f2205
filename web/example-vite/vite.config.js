// What `ir-web` needs of Vite: workers as modules, no pre-bundling (the package finds its files by its own address), and
// the headers that allow threads.
const headers = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' };

export default {
  base: './',
  build: { target: 'es2022' },
  worker: { format: 'es' },
  optimizeDeps: { exclude: ['ir-web'] },
  server: { headers, fs: { allow: ['..'] } },
  preview: { headers },
};
