// The JavaScript kernel. connection.py describes the frames.
//
// Code runs through V8's inspector, whose REPL mode allows top-level await and lets code declare a `const` again. A
// second thread, the control thread, holds the socket (descriptor 3), so that endless code can be interrupted.
'use strict';

const process = globalThis.process; // code may declare a `process` of its own
const SOCKET_FD = 3;
const MAX_DISPLAY_BYTES = 24 * 2 ** 20; // of all forms of one display; the service takes frames of up to 32 MiB
const MAX_ERROR_CHARS = 256 * 1024; // kept of the message of an error, and of its traceback

/** The main function of the control thread. */
function runControlThread() {
  const { workerData, parentPort } = require('node:worker_threads');
  const inspector = require('node:inspector');
  const net = require('node:net');
  const INTERRUPT_GRACE_MS = 200; // for interrupted code to end by itself

  const socket = new net.Socket({ fd: workerData.socketFd, readable: true, writable: true });
  let count = 0;
  let running = false;

  function send(message) {
    const body = Buffer.from(JSON.stringify(message));
    const head = Buffer.alloc(4);
    head.writeUInt32LE(body.length);
    socket.write(Buffer.concat([head, body]));
  }

  function interrupt(id) {
    if (!running || id !== count) return;
    process.kill(0, 'SIGINT'); // for the child processes that the code waits for
    const session = new inspector.Session(); // opened late: a process does not exit while an inspector is connected
    session.connectToMainThread();
    session.post('Runtime.terminateExecution', () => {});
    setTimeout(() => {
      session.disconnect();
      parentPort.postMessage({ ping: id }); // answered only if the code awaits something
      setTimeout(interrupt, INTERRUPT_GRACE_MS, id); // in case the code had not begun
    }, INTERRUPT_GRACE_MS);
  }

  function reportInterrupted(id) {
    if (!running || id !== count) return;
    send({ event: 'error', name: 'Interrupted', value: 'the code was interrupted', traceback: '' });
    end();
  }

  function end() {
    running = false;
    send({ event: 'done', count });
  }

  let data = Buffer.alloc(0);
  socket.on('data', (chunk) => {
    data = Buffer.concat([data, chunk]);
    while (data.length >= 4 && data.length >= 4 + data.readUInt32LE(0)) {
      const size = data.readUInt32LE(0);
      const request = JSON.parse(data.subarray(4, 4 + size).toString());
      data = data.subarray(4 + size);
      if (request.interrupt) {
        interrupt(count);
      } else {
        running = true;
        parentPort.postMessage({ ...request, id: ++count });
      }
    }
  });
  // SIGKILL, because endless code never lets the main thread exit.
  socket.on('close', () => process.kill(workerData.pid, 'SIGKILL'));
  parentPort.on('message', ({ id, pong, ...message }) => {
    if (pong !== undefined) return reportInterrupted(pong); // the code awaits what may never come
    if (id !== undefined && (id !== count || !running)) return; // a late message of interrupted code
    if (message.event === 'done') end();
    else send(message);
  });
  send({ event: 'ready', pid: workerData.pid });
}

const fs = require('node:fs');
const inspector = require('node:inspector');
const stream = require('node:stream');
const util = require('node:util');
const { Worker } = require('node:worker_threads');
const DISPLAY = Symbol.for('Jupyter.display'); // a method that returns content by MIME type, as in Deno's notebooks
const worker = new Worker(`(${runControlThread})()`, { eval: true, workerData: { socketFd: SOCKET_FD, pid: process.pid } });
const postToControl = (message) => worker.postMessage(message);

// Node buffers output once a pipe is full, and loses it at an exit. So output is written here, synchronously.
const sleepCell = new Int32Array(new SharedArrayBuffer(4));
function writeAll(fd, chunk) {
  for (let from = 0; from < chunk.length;) {
    try {
      from += fs.writeSync(fd, chunk, from);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(sleepCell, 0, 0, 1);
    }
  }
}
for (const [fd, name] of [[1, 'stdout'], [2, 'stderr']]) {
  const write = (chunk, encoding, done) => {
    writeAll(fd, chunk);
    done();
  };
  const value = Object.assign(new stream.Writable({ write, decodeStrings: true }), { fd });
  Object.defineProperty(process, name, { value, configurable: true, enumerable: true });
}

function isBundle(value) {
  if (value === null || typeof value !== 'object') return false;
  const keys = Object.keys(value);
  return keys.length > 0 && keys.every((key) => /^\w+\/./.test(key));
}

function toMimeBundle(value) {
  try {
    if (typeof value?.[DISPLAY] === 'function') return value[DISPLAY]();
    if (isBundle(value)) return value;
    return { 'text/plain': util.inspect(value, { depth: 4, maxArrayLength: 1000, maxStringLength: 1 << 20 }) };
  } catch (error) {
    return { 'text/plain': `[cannot be shown: ${error}]` };
  }
}

/** Remove the largest forms until the rest fits into a frame. */
function dropLargeForms(forms) {
  let sizes;
  try {
    sizes = Object.entries(forms).map(([mime, form]) => [mime, Buffer.byteLength(JSON.stringify(form) ?? '')]);
  } catch (error) { // a cycle or a BigInt, which JSON does not have
    return { 'text/plain': `[cannot be shown: ${error}]` };
  }
  sizes.sort((one, other) => one[1] - other[1]);
  let total = sizes.reduce((sum, [, size]) => sum + size, 0);
  if (total <= MAX_DISPLAY_BYTES) return forms;
  const kept = { ...forms };
  const largest = sizes.at(-1)[1];
  while (total > MAX_DISPLAY_BYTES) {
    const [mime, size] = sizes.pop();
    total -= size;
    delete kept[mime];
  }
  const note = `[left out: ${largest} bytes are more than can be shown]`;
  return { ...kept, 'text/plain': 'text/plain' in kept ? `${kept['text/plain']}\n${note}` : note };
}

/** Cut the middle out of a long text. */
function shorten(text) {
  if (text.length <= MAX_ERROR_CHARS) return text;
  const half = MAX_ERROR_CHARS / 2;
  return `${text.slice(0, half)}\n[cut: ${text.length - 2 * half} characters]\n${text.slice(-half)}`;
}

function explain(error) {
  if (!util.types.isNativeError(error) && !(error instanceof Error)) {
    return { name: 'Error', value: shorten(util.inspect(error)), traceback: '' };
  }
  const stack = String(error.stack ?? '').split(/\n +at (?=Session\.post \(node:inspector)/)[0]; // the rest are frames of this kernel
  return { name: String(error.name), value: shorten(String(error.message)), traceback: shorten(`${stack}\n`) };
}

const displayAs = (mime, convert = String) => (content) => ({
  [DISPLAY]: () => ({ [mime]: convert(content), 'text/plain': `<${mime}>` }),
});
const base64 = (content) => (typeof content === 'string' ? content : Buffer.from(content).toString('base64'));
const helpers = {
  display(value) {
    const data = typeof value === 'string' ? { 'text/plain': value } : toMimeBundle(value);
    postToControl({ event: 'result', data: dropLargeForms(data), main: false });
  },
  html: displayAs('text/html'),
  markdown: displayAs('text/markdown'),
  latex: displayAs('text/latex'),
  svg: displayAs('image/svg+xml'),
  png: displayAs('image/png', base64),
  jpeg: displayAs('image/jpeg', base64),
  json: displayAs('application/json', (content) => content),
  vega: displayAs('application/vnd.vegalite.v5+json', (content) => content),
  require: require('node:module').createRequire(`${process.cwd()}/`),
};
for (const [name, value] of Object.entries(helpers)) {
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
}

// The inspector calls a function on a remote object, and the function stores the object itself here.
let fetchedValue;
Object.defineProperty(globalThis, Symbol.for('agentbay'), { value: { take: (value) => { fetchedValue = value; }, load: dynamicImport } });

const session = new inspector.Session();
session.connect();

function resolveRemoteObject(remote) {
  if (remote.type === 'string' || remote.type === 'boolean') return remote.value;
  if (!remote.objectId) {
    return { [util.inspect.custom]: () => remote.unserializableValue ?? remote.description ?? String(remote.value) };
  }
  session.post('Runtime.callFunctionOn', {
    objectId: remote.objectId, functionDeclaration: 'function () { "use strict"; globalThis[Symbol.for("agentbay")].take(this); }',
  });
  return fetchedValue;
}

function reportOutcome(id, failure, outcome) {
  if (failure) {
    const value = /terminated/.test(failure.message) ? 'the code was interrupted' : failure.message;
    postToControl({ id, event: 'error', name: 'Interrupted', value, traceback: '' });
  } else if (outcome.exceptionDetails) {
    const { exception, text } = outcome.exceptionDetails;
    postToControl({ id, event: 'error', ...explain(exception ? resolveRemoteObject(exception) : text) });
  } else if (outcome.result.type !== 'undefined') {
    postToControl({ id, event: 'result', data: dropLargeForms(toMimeBundle(resolveRemoteObject(outcome.result))), main: true });
  }
  fetchedValue = undefined;
  // The inspector keeps every value of the cell alive until its group is released.
  session.post('Runtime.releaseObjectGroup', { objectGroup: 'cell' });
  postToControl({ id, event: 'done' });
}

worker.on('message', ({ id, code, env, ping }) => {
  if (ping !== undefined) return postToControl({ pong: ping });
  Object.assign(process.env, env);
  // scripts of the inspector cannot use import(), so they call the loader's
  const expression = code.replace(/(?<![\w$.])import\s*(?=\()/g, 'globalThis[Symbol.for("agentbay")].load');
  const options = { expression, replMode: true, awaitPromise: true, objectGroup: 'cell' };
  session.post('Runtime.evaluate', options, (failure, outcome) => reportOutcome(id, failure, outcome));
});

const report = (error) => process.stderr.write(`${error?.stack ?? util.inspect(error)}\n`);
process.on('uncaughtException', report); // in timers and callbacks: the kernel survives
process.on('unhandledRejection', report);
// An interrupt sends SIGINT to the whole process group, and it would end this process by default.
process.on('SIGINT', () => {});
