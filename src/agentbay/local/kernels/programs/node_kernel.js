// The JavaScript kernel. connection.py describes the frames.
//
// Code runs through V8's inspector, whose REPL mode allows top-level await and lets code declare a `const` again. What it
// lacks is `import`: Node's own parser finds where code has it. A second thread, the control thread, holds the socket
// (descriptor 3), so that endless code can be interrupted.
'use strict';

const process = globalThis.process; // code may declare a `process` of its own
const SOCKET_FD = 3;
const MAX_DISPLAY_BYTES = 24 * 2 ** 20; // of all forms of one display; the service takes frames of up to 32 MiB
const MAX_ERROR_CHARS = 256 * 1024; // kept of the message of an error, and of its traceback
const MAX_JSON_CHARS = 4 * 2 ** 20; // of a value that is sent as JSON as well
const MAX_JSON_ELEMENTS = 100_000; // of an array that is

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

  function reportExit(id, status) {
    if (!running || id !== count) return;
    const value = `the code called process.exit(${status}); what was defined is kept`;
    if (status !== 0) send({ event: 'error', name: 'ProcessExit', value, traceback: '' });
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
  parentPort.on('message', ({ id, pong, exit, ...message }) => {
    if (pong !== undefined) return reportInterrupted(pong); // the code awaits what may never come
    if (exit !== undefined) return reportExit(id, exit);
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
// Node's own, of its REPL, loaded when code first has an import.
const parser = () => require('internal/deps/acorn/acorn/dist/acorn');
const walker = () => require('internal/deps/acorn/acorn-walk/dist/walk');
process.execArgv = process.execArgv.filter((argument) => !/^--(expose-internals|no-force)/.test(argument)); // not for children

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

/** Return a copy of an array or a plain object, or undefined if JSON cannot hold it as it is. */
function asJson(value) {
  const isArray = Array.isArray(value);
  if (isArray ? value.length > MAX_JSON_ELEMENTS : Object.prototype.toString.call(value) !== '[object Object]') return undefined;
  try {
    const text = JSON.stringify(value);
    if (text.length > MAX_JSON_CHARS) return undefined;
    const copy = JSON.parse(text);
    return util.isDeepStrictEqual(copy, value) ? copy : undefined;
  } catch { // such as a cycle
    return undefined;
  }
}

function toMimeBundle(value) {
  try {
    if (typeof value?.[DISPLAY] === 'function') return value[DISPLAY]();
    if (isBundle(value)) return value;
    const text = util.inspect(value, { depth: 4, maxArrayLength: 1000, maxStringLength: 1 << 20 });
    const json = asJson(value);
    return { 'text/plain': text, ...(json === undefined ? {} : { 'application/json': json }) };
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

const isError = (value) => util.types.isNativeError(value) || value instanceof Error;

/** Remove the frames of this kernel from the stacks of an error and of its causes. */
function trimStacks(error, seen = new Set()) {
  if (!isError(error) || seen.has(error)) return;
  seen.add(error);
  const [own, ...kernel] = String(error.stack ?? '').split(/\n +at (?=Session\.post \(node:inspector)/);
  if (kernel.length > 0) Reflect.set(error, 'stack', own);
  trimStacks(error.cause, seen);
  if (Array.isArray(error.errors)) for (const inner of error.errors) trimStacks(inner, seen);
}

/** Return an error as Node prints it, with its causes. */
function describe(error) {
  try {
    trimStacks(error);
    return util.inspect(error);
  } catch (another) { // the code's own class, which may do anything
    return `[an error that cannot be shown: ${another}]`;
  }
}

function explain(error) {
  if (!isError(error)) return { name: 'Error', value: shorten(describe(error)), traceback: '' };
  const hint = /^Cannot use import statement/.test(error.message) ? '; within a block or a function, use await import(...)' : '';
  return { name: String(error.name), value: shorten(`${error.message}${hint}`), traceback: shorten(`${describe(error)}\n`) };
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
Object.defineProperty(globalThis, Symbol.for('agentbay'), { value: { take: (value) => { fetchedValue = value; }, load } });

/** What an `import` of the code calls: the loader, which must find the names. */
async function load(specifier, options, names = []) {
  const module = await dynamicImport(specifier, options ?? undefined);
  const missing = names.find((name) => !(name in module));
  if (missing !== undefined) throw new SyntaxError(`The requested module '${specifier}' does not provide an export named '${missing}'`);
  return module;
}

const LOAD = 'globalThis[Symbol.for("agentbay")].load';
const SYNTAX = {
  ecmaVersion: 'latest', sourceType: 'script', allowAwaitOutsideFunction: true, allowImportExportEverywhere: true, allowHashBang: true,
};

/** Return code in which each `import` calls the loader, since scripts of the inspector have none. */
function withLoader(code) {
  if (!code.includes('import')) return code;
  let program;
  try {
    program = parser().parse(code, SYNTAX);
  } catch { // V8 tells what is wrong with it
    return code;
  }
  const edits = []; // [start, end, replacement]
  const isImport = (node) => node.type === 'ImportDeclaration';
  const imports = program.body.filter(isImport);
  if (imports.length > 0) { // they come first, wherever they stand
    const { start } = program.body.find((node) => node.directive === undefined);
    edits.push([start, start, imports.map(toAwaitedImport).join('')]);
  }
  for (const { start, end } of imports) edits.push([start, end, ';' + '\n'.repeat(code.slice(start, end).split('\n').length - 1)]);
  walker().full(program, (node) => {
    if (node.type === 'ImportExpression') edits.push([node.start, node.start + 'import'.length, LOAD]);
  });
  edits.sort(([one], [other]) => one - other);
  let [result, position] = ['', 0];
  for (const [start, end, replacement] of edits) {
    result += code.slice(position, start) + replacement;
    position = end;
  }
  return result + code.slice(position);
}

/** Return the statements that do what an import declaration does. */
function toAwaitedImport({ source, specifiers, attributes = [] }) {
  const nameOf = (node) => node.name ?? node.value; // an identifier, or a text
  const options = attributes.length > 0 && { with: Object.fromEntries(attributes.map(({ key, value }) => [nameOf(key), value.value])) };
  const loaded = (names) => `await ${LOAD}(${[source.value, options || null, names].map((part) => JSON.stringify(part)).join(', ')});`;
  const whole = specifiers.find(({ type }) => type === 'ImportNamespaceSpecifier');
  const pairs = specifiers.filter((one) => one !== whole).map(({ imported, local }) => [imported ? nameOf(imported) : 'default', local.name]);
  const pattern = pairs.map(([name, local]) => `${JSON.stringify(name)}: ${local}`).join(', ');
  return `${whole ? `const ${whole.local.name} = ${loaded([])}` : ''}${pairs.length > 0 ? `const { ${pattern} } = ` : ''}${
    whole && pairs.length === 0 ? '' : loaded(pairs.map(([name]) => name))}`;
}

const session = new inspector.Session();
session.connect();

let currentId; // of the code that runs
process.exit = (status = process.exitCode) => {
  // An end of the code, as sys.exit() is in Python: the kernel goes on. Nothing that the code catches may stop it.
  if (currentId !== undefined) postToControl({ id: currentId, exit: Number(status ?? 0) });
  session.post('Runtime.terminateExecution');
  for (;;);
};

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
    return end(id);
  }
  if (outcome.exceptionDetails) {
    const { exception, text } = outcome.exceptionDetails;
    return reportError(id, exception ? resolveRemoteObject(exception) : text);
  }
  const value = outcome.result.type === 'undefined' ? undefined : resolveRemoteObject(outcome.result);
  if (!util.types.isPromise(value)) return reportValue(id, value);
  Promise.prototype.then.call(value, (result) => reportValue(id, result), (error) => reportError(id, error));
}

function reportValue(id, value) {
  if (value !== undefined) postToControl({ id, event: 'result', data: dropLargeForms(toMimeBundle(value)), main: true });
  end(id);
}

function reportError(id, error) {
  postToControl({ id, event: 'error', ...explain(error) });
  end(id);
}

function end(id) {
  fetchedValue = undefined;
  // The inspector keeps every value of the cell alive until its group is released.
  session.post('Runtime.releaseObjectGroup', { objectGroup: 'cell' });
  postToControl({ id, event: 'done' });
  if (currentId === id) currentId = undefined;
}

worker.on('message', ({ id, code, env, ping }) => {
  if (ping !== undefined) return postToControl({ pong: ping });
  Object.assign(process.env, env);
  currentId = id;
  const options = { expression: withLoader(code), replMode: true, awaitPromise: true, objectGroup: 'cell' };
  session.post('Runtime.evaluate', options, (failure, outcome) => reportOutcome(id, failure, outcome));
});

const report = (error) => process.stderr.write(`${describe(error)}\n`);
process.on('uncaughtException', report); // in timers and callbacks: the kernel survives
process.on('unhandledRejection', report);
// An interrupt sends SIGINT to the whole process group, and it would end this process by default.
process.on('SIGINT', () => {});
