// The view of one session: its state, its processes and its command history.

import { age, announce, arrows, duration, element, extend, find, keep, labelMarks, percent, plain, size, stateMark, write } from "./dom.js";
import { ask, follow, scope, showConnection, showProblem } from "./ask.js";
import { showFiles } from "./files.js";
import { showRecord } from "./record.js";

const STATES = { R: "running", S: "sleeping", D: "waiting", T: "stopped", t: "traced", Z: "ended", I: "idle" };
const PARTS = { text: "Command", out: "Output", err: "Errors", note: "End" };
const KEPT = 100; // entries of the log, beside those that still run

let id = "";
let session = null;
let skew = 0;
let entries = new Map();
let loaded = false;
let refreshFiles = () => {};
let opened = null; // the newest entry, opened until a newer one comes, unless the user has opened or closed it

arrows(find("log"), "summary");
find("log").addEventListener("click", (event) => {
  const entry = event.target.closest("summary")?.parentElement;
  if (entry) entry.dataset.touched = "yes";
});
find("log").addEventListener("toggle", ({ target }) => {
  for (const output of target.querySelectorAll(".out, .err")) output.scrollTop = output.scrollHeight;
}, true);
find("hold").addEventListener("click", () => change(session.state === "PAUSED" ? "resume" : "pause"));
find("delete").addEventListener("click", () => find("sure").showModal());
find("sure").addEventListener("close", () => {
  if (find("sure").returnValue === "delete") change("delete");
  find("sure").returnValue = "";
});

export function showSession(name, signal) {
  id = name;
  session = null;
  entries = new Map();
  opened = null;
  loaded = false;
  for (const part of ["log", "processes", "facts", "state"]) find(part).replaceChildren();
  find("one").hidden = false;
  find("one").classList.remove("ended");
  find("back").hidden = Boolean(scope);
  for (const part of document.querySelectorAll(".whole")) part.hidden = Boolean(scope);
  find("actions").hidden = true;
  write(find("name"), id);
  document.title = `${id} · agentbay local`;
  find("name").focus({ preventScroll: true });
  const ticking = setInterval(drawAges, 1000);
  signal.addEventListener("abort", () => clearInterval(ticking));
  refreshFiles = showFiles(id, signal);
  showRecord(id, signal);
  follow(`/${id}`, signal, take);
}

async function change(what) {
  try {
    await ask(`/${id}/${what}`);
    showProblem("");
  } catch (error) {
    showProblem(error.message);
  }
}

function take(line) {
  if (line.ended) {
    end();
    return false;
  }
  skew = line.now - Date.now() / 1000;
  if (line.session) drawSession(line.session);
  if (line.processes) drawProcesses(line.processes);
  if (line.log && drawLog(line.log)) refreshFiles();
  loaded = true;
  drawAges();
  return true;
}

function end() {
  find("one").classList.add("ended");
  find("actions").hidden = true;
  find("state").replaceChildren(stateMark("ended"));
  find("processes").replaceChildren();
  find("processes-none").hidden = false;
  document.title = `${id} · ended · agentbay local`;
  announce("The session has ended");
  showConnection("");
  showProblem("This session has ended.");
}

function drawSession(now) {
  if (session && session.state !== now.state) announce(`The session is ${now.state.toLowerCase()}`);
  if (session?.state !== now.state) find("state").replaceChildren(stateMark(now.state));
  const resumed = session?.state === "PAUSED" && now.state === "RUNNING";
  session = now;
  document.title = `${id} · ${now.state.toLowerCase()} · agentbay local`;
  const labels = element("span", { className: "labels" }, ...labelMarks(now.labels));
  const facts = [
    ["Image", now.image],
    ["Age", ""],
    ["Memory", size(now.memory)],
    ["CPU", percent(now.load)],
    ["Processes", String(now.processes)],
    ...(now.policy ? [["Policy", now.policy]] : []),
    ...(Object.keys(now.labels).length ? [["Labels", labels]] : []),
  ];
  keep(find("facts"), facts, ([name]) => name, makeFact, (pair, [name, value]) => {
    if (value instanceof Node) pair.lastChild.replaceChildren(value);
    else if (name !== "Age") write(pair.lastChild, value);
  });
  find("actions").hidden = Boolean(scope);
  find("record").hidden = !now.recorded;
  write(find("hold"), now.state === "PAUSED" ? "Resume" : "Pause");
  find("hold").disabled = !["RUNNING", "PAUSED"].includes(now.state);
  // While the session was paused, no file could be listed.
  if (resumed) refreshFiles();
}

function makeFact([name]) {
  return element("div", {}, element("dt", {}, name), element("dd", {}));
}

function drawProcesses(processes) {
  keep(find("processes"), processes, (process) => process.pid, makeProcess, (row, process) => {
    const [pid, command, state, memory, time, old] = row.children;
    write(pid, String(process.pid));
    write(command, process.command);
    command.title = process.command;
    write(state, STATES[process.state] ?? process.state);
    write(memory, size(process.memory_bytes));
    write(time, duration(process.cpu_seconds));
    write(old, age(process.seconds));
  });
  find("processes-none").hidden = processes.length > 0;
}

function makeProcess() {
  const cell = (className = "") => element("td", { className });
  return element("tr", {}, cell("number"), cell("command"), cell("wide"), cell("number"), cell("number wide"), cell("number"));
}

// Draw the changed entries; return whether any began or ended.
function drawLog(changed) {
  let turned = false;
  for (const entry of changed) {
    const before = entries.get(entry.number);
    const ended = entry.seconds !== null && (before?.seconds ?? null) === null;
    if (loaded && ended) announce(`${line(entry.text)}: ${outcome(entry)}`);
    turned ||= ended || !before;
    entries.set(entry.number, entry);
  }
  const newest = [...entries.values()].sort((one, other) => other.number - one.number);
  const kept = newest.filter((entry, place) => place < KEPT || entry.seconds === null);
  entries = new Map(kept.map((entry) => [entry.number, entry]));
  keep(find("log"), kept, (entry) => entry.number, makeEntry, updateEntry);
  find("log-none").hidden = kept.length > 0;
  openNewest(find("log").querySelector("details"));
  return turned;
}

function openNewest(newest) {
  if (!newest || newest === opened) return;
  if (opened && !opened.dataset.touched) opened.open = false;
  newest.open = true;
  opened = newest;
}

function makeEntry(entry) {
  const when = new Date(entry.began * 1000);
  const time = element("time", { dateTime: when.toISOString() }, when.toLocaleTimeString([], { hour12: false }));
  const summary = element(
    "summary",
    {},
    time,
    element("span", { className: "kind" }, entry.kind),
    element("code", {}, line(entry.text)),
    element("span", { className: "outcome" }),
  );
  const parts = Object.entries(PARTS).map(([name, label]) =>
    element("pre", { className: name, role: "group", ariaLabel: label }),
  );
  return element("li", {}, element("details", {}, summary, ...parts));
}

function updateEntry(item, entry) {
  if (item.dataset.changed === String(entry.changed)) return;
  item.dataset.changed = entry.changed;
  item.dataset.state = entry.seconds === null ? "running" : entry.failed ? "failed" : "done";
  const [summary, text, out, err, note] = item.firstChild.children;
  write(summary.lastChild, outcome(entry));
  write(text, entry.text);
  extend(out, plain(entry.stdout));
  extend(err, plain(entry.stderr));
  write(note, entry.note);
}

function outcome(entry) {
  if (entry.seconds === null) return `running · ${age(Date.now() / 1000 + skew - entry.began)}`;
  const took = duration(entry.seconds);
  if (entry.note) return `${entry.failed ? "failed" : "ended"} · ${took}`;
  if (entry.exit_code === null) return `${entry.failed ? "failed" : "done"} · ${took}`;
  return `exit ${entry.exit_code} · ${took}`;
}

function line(text) {
  return text.trim().split("\n", 1)[0] || "(empty)";
}

function drawAges() {
  const now = Date.now() / 1000 + skew;
  const old = find("facts").querySelector('[data-key="Age"] dd');
  if (old && session) write(old, age(now - session.created));
  for (const item of find("log").children) {
    const entry = entries.get(Number(item.dataset.key));
    if (entry?.seconds === null) write(item.querySelector(".outcome"), outcome(entry));
  }
}
