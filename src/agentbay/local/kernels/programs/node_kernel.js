// The JavaScript kernel. Code runs by way of V8's inspector, whose REPL mode knows top-level await and lets `const` be
// declared again. A second thread holds the socket (descriptor 3), so that code which never comes back can be
// interrupted. Frames are as for the Python kernel: a length of 4 bytes and a JSON object. What code writes is in the
// pipes, descriptors 1 and 2, before a frame that comes after it is sent.
'use strict';

const process = globalThis.process; // code may declare a `process` of its own
const CONTROL = 3;

/** The thread at the socket. */
function controller() {
  const { workerData, parentPort } = require('node:worker_threads');
  const inspector = require('node:inspector');
  const net = require('node:net');
  const PATIENCE = 200; // milliseconds for interrupted code to end by itself

  const socket = new net.Socket({ fd: workerData.control, readable: true, writable: true });
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
    process.kill(0, 'SIGINT'); // the processes that the code waits for
    const session = new inspector.Session(); // only now: a process with a debugger does not end before that has left
    session.connectToMainThread();
    session.post('Runtime.terminateExecution', () => {});
    setTimeout(() => {
      session.disconnect();
      parentPort.postMessage({ answer: id }); // which it can if it only waits for something
      setTimeout(interrupt, PATIENCE, id); // perhaps it had not begun
    }, PATIENCE);
  }

  function giveUp(id) {
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
  socket.on('close', () => process.kill(workerData.pid, 'SIGKILL'));
  parentPort.on('message', ({ id, answered, ...message }) => {
    if (answered !== undefined) return giveUp(answered); // it waits for what does not come
    if (id !== undefined && (id !== count || !running)) return; // of code that was given up
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
const DISPLAY = Symbol.for('Jupyter.display'); // as Deno's notebooks have it: a method that returns forms by MIME type
const worker = new Worker(`(${controller})()`, { eval: true, workerData: { control: CONTROL, pid: process.pid } });
const tell = (message) => worker.postMessage(message);

// Node writes to pipes behind the program's back once they are full.
const pause = new Int32Array(new SharedArrayBuffer(4));
function writeAll(fd, chunk) {
  for (let from = 0; from < chunk.length;) {
    try {
      from += fs.writeSync(fd, chunk, from);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(pause, 0, 0, 1);
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

function forms(value) {
  try {
    if (typeof value?.[DISPLAY] === 'function') return value[DISPLAY]();
    if (isBundle(value)) return value;
    return { 'text/plain': util.inspect(value, { depth: 4, maxArrayLength: 1000, maxStringLength: 1 << 20 }) };
  } catch (error) {
    return { 'text/plain': `[cannot be shown: ${error}]` };
  }
}

function explain(error) {
  if (!util.types.isNativeError(error) && !(error instanceof Error)) {
    return { name: 'Error', value: util.inspect(error), traceback: '' };
  }
  const stack = String(error.stack ?? '').split(/\n +at (?=Session\.post \(node:inspector)/)[0]; // the rest is this kernel's
  return { name: String(error.name), value: String(error.message), traceback: `${stack}\n` };
}

const as = (mime, convert = String) => (content) => ({
  [DISPLAY]: () => ({ [mime]: convert(content), 'text/plain': `<${mime}>` }),
});
const base64 = (content) => (typeof content === 'string' ? content : Buffer.from(content).toString('base64'));
const helpers = {
  display(value) {
    tell({ event: 'result', data: typeof value === 'string' ? { 'text/plain': value } : forms(value), main: false });
  },
  html: as('text/html'),
  markdown: as('text/markdown'),
  latex: as('text/latex'),
  svg: as('image/svg+xml'),
  png: as('image/png', base64),
  jpeg: as('image/jpeg', base64),
  json: as('application/json', (content) => content),
  vega: as('application/vnd.vegalite.v5+json', (content) => content),
  require: require('node:module').createRequire(`${process.cwd()}/`),
};
for (const [name, value] of Object.entries(helpers)) {
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
}

// What the inspector finds is handed over here; a function it calls on an object gets the object itself.
let taken;
Object.defineProperty(globalThis, Symbol.for('agentbay'), { value: { take: (value) => { taken = value; }, load: dynamicImport } });

const session = new inspector.Session();
session.connect();

function fetch(remote) {
  if (remote.type === 'string' || remote.type === 'boolean') return remote.value;
  if (!remote.objectId) {
    return { [util.inspect.custom]: () => remote.unserializableValue ?? remote.description ?? String(remote.value) };
  }
  session.post('Runtime.callFunctionOn', {
    objectId: remote.objectId, functionDeclaration: 'function () { "use strict"; globalThis[Symbol.for("agentbay")].take(this); }',
  });
  return taken;
}

function finish(id, failure, outcome) {
  if (failure) {
    const value = /terminated/.test(failure.message) ? 'the code was interrupted' : failure.message;
    tell({ id, event: 'error', name: 'Interrupted', value, traceback: '' });
  } else if (outcome.exceptionDetails) {
    const { exception, text } = outcome.exceptionDetails;
    tell({ id, event: 'error', ...explain(exception ? fetch(exception) : text) });
  } else if (outcome.result.type !== 'undefined') {
    tell({ id, event: 'result', data: forms(fetch(outcome.result)), main: true });
  }
  taken = undefined;
  session.post('Runtime.releaseObjectGroup', { objectGroup: 'cell' });
  tell({ id, event: 'done' });
}

worker.on('message', ({ id, code, env, answer }) => {
  if (answer !== undefined) return tell({ answered: answer });
  Object.assign(process.env, env);
  // the inspector's scripts have no loader of their own
  const expression = code.replace(/(?<![\w$.])import\s*(?=\()/g, 'globalThis[Symbol.for("agentbay")].load');
  const options = { expression, replMode: true, awaitPromise: true, objectGroup: 'cell' };
  session.post('Runtime.evaluate', options, (failure, outcome) => finish(id, failure, outcome));
});

const report = (error) => process.stderr.write(`${error?.stack ?? util.inspect(error)}\n`);
process.on('uncaughtException', report); // of timers and the like: the kernel goes on
process.on('unhandledRejection', report);
process.on('SIGINT', () => {});
