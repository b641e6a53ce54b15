// The page of one session: what it is, what runs in it, what was run.

import { age, announce, arrows, duration, element, find, keep, labelMarks, percent, size, stateMark, write } from "./dom.js";
import { ask, follow, scope, showConnection, showProblem } from "./ask.js";
import { showFiles } from "./files.js";

const STATES = { R: "running", S: "sleeping", D: "waiting", T: "stopped", t: "traced", Z: "ended", I: "idle" };
const ESCAPES = /\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)/g; // colours and such, meant for terminals

let id = "";
let session = null;
let skew = 0;
let entries = new Map();
let loaded = false;
let refreshFiles = () => {};
let opened = null; // the newest entry, which is open until there is a newer one or somebody closes or opens it

arrows(find("log"), "summary");
find("log").addEventListener("click", (event) => {
  const entry = event.target.closest("summary")?.parentElement;
  if (entry) entry.dataset.touched = "yes";
});
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
  if (line.log) {
    drawLog(line.log);
    refreshFiles();
  }
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
  write(find("hold"), now.state === "PAUSED" ? "Resume" : "Pause");
  find("hold").disabled = !["RUNNING", "PAUSED"].includes(now.state);
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

function drawLog(changed) {
  for (const entry of changed) {
    const before = entries.get(entry.number);
    if (loaded && entry.seconds !== null && (!before || before.seconds === null)) announce(`${line(entry.text)}: ${outcome(entry)}`);
    entries.set(entry.number, entry);
  }
  const newest = [...entries.values()].sort((one, other) => other.number - one.number).slice(0, 100);
  entries = new Map(newest.map((entry) => [entry.number, entry]));
  keep(find("log"), newest, (entry) => entry.number, makeEntry, updateEntry);
  find("log-none").hidden = newest.length > 0;
  openNewest(find("log").querySelector("details"));
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
  const parts = ["text", "out", "err", "note"].map((name) => element("pre", { className: name }));
  return element("li", {}, element("details", {}, summary, ...parts));
}

function updateEntry(item, entry) {
  const [summary, text, out, err, note] = item.firstChild.children;
  const state = entry.seconds === null ? "running" : entry.failed ? "failed" : "done";
  if (item.dataset.state === state) return;
  item.dataset.state = state;
  write(summary.lastChild, outcome(entry));
  write(text, entry.text);
  write(out, entry.stdout.replace(ESCAPES, "").trimEnd());
  write(err, entry.stderr.replace(ESCAPES, "").trimEnd());
  write(note, entry.note);
}

function outcome(entry) {
  if (entry.seconds === null) return "running";
  const took = entry.kind === "background" ? "" : ` · ${duration(entry.seconds)}`;
  if (entry.kind === "background" && !entry.failed) return "started";
  if (entry.note) return `failed${took}`;
  if (entry.exit_code === null) return (entry.failed ? "failed" : "done") + took;
  return `exit ${entry.exit_code}${took}`;
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
    if (entry?.seconds === null) write(item.querySelector(".outcome"), `running · ${age(now - entry.began)}`);
  }
}
