// The list of all sessions.

import { age, announce, arrows, element, find, keep, labelMarks, percent, size, stateMark, write } from "./dom.js";
import { follow } from "./ask.js";

const sessions = new Map();
let skew = 0; // seconds that the runtime's clock is ahead of this one
let loaded = false;

arrows(find("rows"), "a");
find("filter").addEventListener("input", draw);
find("filter").addEventListener("keydown", (event) => {
  const first = find("rows").querySelector("a");
  if (event.key === "ArrowDown" && first) {
    event.preventDefault();
    first.focus();
  }
});
find("rows").addEventListener("click", (event) => {
  const link = event.target.closest("tr")?.querySelector("a");
  if (link && event.target !== link && !getSelection().toString()) link.click();
});

export function showList(signal) {
  find("list").hidden = false;
  document.title = "Sessions · agentbay local";
  sessions.clear();
  loaded = false;
  const ticking = setInterval(drawAges, 1000);
  signal.addEventListener("abort", () => clearInterval(ticking));
  follow("", signal, take);
}

// Escape clears the filter; there is nothing further back.
export function escapeList() {
  find("filter").value = "";
  draw();
  find("rows").querySelector("a")?.focus();
}

function take(line) {
  skew = line.now - Date.now() / 1000;
  if (!line.sessions) return;
  for (const [id, session] of Object.entries(line.sessions)) {
    if (loaded && !sessions.has(id)) announce(`Session ${id} was created`);
    else if (loaded && sessions.get(id).state !== session.state) announce(`Session ${id} is ${session.state.toLowerCase()}`);
    sessions.set(id, session);
  }
  for (const id of line.gone) {
    sessions.delete(id);
    announce(`Session ${id} has ended`);
  }
  loaded = true;
  draw();
}

function draw() {
  const all = [...sessions.values()].sort((one, other) => other.created - one.created);
  const wanted = find("filter").value.trim().toLowerCase();
  const shown = all.filter((session) => !wanted || text(session).includes(wanted));
  const focused = document.activeElement?.closest?.("#rows tr");
  const place = focused ? [...find("rows").children].indexOf(focused) : -1;
  keep(find("rows"), shown, (session) => session.id, makeRow, updateRow);
  // The row with the focus may be gone: its neighbour gets the focus, and not the top of the document.
  if (focused && !focused.isConnected) find("rows").children[Math.min(place, shown.length - 1)]?.querySelector("a").focus();
  find("sessions").hidden = !shown.length;
  find("none").hidden = !loaded || shown.length > 0;
  find("none").textContent = all.length ? "No session matches." : "There is no session. One appears here as soon as a program creates it.";
  const memory = all.reduce((sum, session) => sum + session.memory, 0);
  const count = shown.length === all.length ? all.length : `${shown.length} of ${all.length}`;
  write(find("sum"), loaded ? `${count} · ${size(memory)}` : "");
  document.title = `${all.length} ${all.length === 1 ? "session" : "sessions"} · agentbay local`;
  drawAges();
}

function text(session) {
  const labels = Object.entries(session.labels).map((pair) => pair.join("="));
  return [session.id, session.state, session.image, ...labels].join(" ").toLowerCase();
}

function makeRow(session) {
  const cell = (className = "") => element("td", { className });
  const link = element("a", { href: `/view/sessions/${session.id}`, className: "id" }, ...idParts(session.id));
  const first = element("td", {}, link, element("span", { className: "labels" }), element("span", { className: "narrow" }));
  return element("tr", {}, first, cell(), cell("wide"), cell("number wide"), cell("number wide"), cell("number"), cell("number"));
}

// The part that all ids have in common is left out where there is little room.
function idParts(id) {
  const [, prefix, rest] = id.match(/^(session-)?(.*)$/s);
  return prefix ? [element("span", { className: "prefix" }, prefix), rest] : [rest];
}

function updateRow(row, session) {
  if (row.shown === session) return;
  row.shown = session;
  const [first, state, image, processes, load, memory] = row.children;
  const labels = JSON.stringify(session.labels);
  if (row.dataset.labels !== labels) {
    row.dataset.labels = labels;
    first.children[1].replaceChildren(...labelMarks(session.labels));
  }
  write(first.children[2], session.image);
  if (state.textContent !== session.state.toLowerCase()) state.replaceChildren(stateMark(session.state));
  write(image, session.image);
  write(processes, String(session.processes));
  write(load, percent(session.load));
  load.classList.toggle("busy", session.load >= 0.5);
  write(memory, size(session.memory));
}

function drawAges() {
  for (const row of find("rows").children) {
    const session = sessions.get(row.dataset.key);
    if (session) write(row.lastElementChild, age(Date.now() / 1000 + skew - session.created));
  }
}
