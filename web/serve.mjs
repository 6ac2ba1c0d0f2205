// A static server for trying the page and for its tests: `node web/serve.mjs [PORT [PREFIX]]` serves web/dist on this
// machine only, with the headers that threads need. `serve()` is the same as a function, with hooks for tests.

import { createReadStream, realpathSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
  '.svg': 'image/svg+xml',
  '.gguf': 'application/octet-stream',
};

const DIST = fileURLToPath(new URL('./dist', import.meta.url));

/** `prefix`: the path that files lie below. `isolate`: COOP and COEP. `routes`: functions by path that answer first. Gives `{url, close}`. */
export function serve({ root = DIST, port = 0, prefix = '/', isolate = true, routes = {} } = {}) {
  const base = realpathSync(root);
  const server = createServer((request, response) => {
    if (isolate) {
      response.setHeader('Cross-Origin-Opener-Policy', 'same-origin');
      response.setHeader('Cross-Origin-Embedder-Policy', 'require-corp');
    }
    response.setHeader('Cross-Origin-Resource-Policy', 'same-origin');
    response.setHeader('X-Content-Type-Options', 'nosniff');
    response.setHeader('Cache-Control', 'no-cache');
    const path = new URL(request.url, 'http://127.0.0.1').pathname;
    if (routes[path]) routes[path](request, response);
    else file({ base, prefix, path }, request, response);
  });
  return new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(port, '127.0.0.1', () => {
      const close = () => new Promise((done) => {
        server.close(done);
        server.closeAllConnections();
      });
      resolve({ url: `http://127.0.0.1:${server.address().port}${prefix}`, close });
    });
  });
}

function file({ base, prefix, path }, request, response) {
  let full;
  let stat;
  try {
    if (!`${path}/`.startsWith(prefix)) throw new Error('outside');
    full = realpathSync(join(base, decodeURIComponent(path.slice(prefix.length))));
    if (full !== base && !full.startsWith(base + sep)) throw new Error('outside');
    if (statSync(full).isDirectory()) {
      if (!path.endsWith('/')) {
        // Else the page would look for its files in the folder above.
        response.writeHead(301, { Location: `/${path}/`.replace(/\/+/g, '/') }).end();
        return;
      }
      full = join(full, 'index.html');
    }
    stat = statSync(full);
  } catch {
    response.writeHead(404, { 'Content-Type': 'text/plain' }).end('there is no such file\n');
    return;
  }
  response.setHeader('Content-Type', TYPES[extname(full)] ?? 'application/octet-stream');
  response.setHeader('ETag', `"${stat.size.toString(16)}-${Math.round(stat.mtimeMs).toString(16)}"`);
  sendRange(request, response, stat.size, (start, end) => createReadStream(full, { start, end }));
}

/** Answers with all of a file of `size` bytes, or the range that was asked for; `open(start, end)` gives a stream. */
export function sendRange(request, response, size, open) {
  response.setHeader('Accept-Ranges', 'bytes');
  let [start, end] = [0, size - 1];
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  if (range) {
    [start, end] = [Number(range[1]), Math.min(range[2] ? Number(range[2]) : size - 1, size - 1)];
    if (start > end) {
      response.writeHead(416, { 'Content-Range': `bytes */${size}` }).end();
      return;
    }
    response.setHeader('Content-Range', `bytes ${start}-${end}/${size}`);
  }
  response.writeHead(range ? 206 : 200, { 'Content-Length': Math.max(0, end - start + 1) });
  if (request.method === 'HEAD' || size === 0) {
    response.end();
    return;
  }
  const stream = open(start, end);
  stream.on('error', () => response.destroy());
  stream.pipe(response);
  response.on('close', () => stream.destroy());
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [port = 8080, prefix = '/'] = process.argv.slice(2);
  const { url } = await serve({ port: Number(port), prefix: `/${prefix}/`.replace(/\/+/g, '/') });
  console.log(`the page is at ${url} until Ctrl-C`);
}
