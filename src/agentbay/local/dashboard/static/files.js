// The file browser of a session: directories, previews of texts, downloads.

import { announce, arrows, element, find, keep, size, write } from "./dom.js";
import { ask } from "./ask.js";

const ROOTS = { "/home/wuying": "Home", "/tmp": "/tmp" };
const REFRESH_PERIOD = 5000; // milliseconds between two listings of a directory

let id = "";
let path = "";
let shown = ""; // the path of the text in the viewer

arrows(find("files"), "button");
find("viewer-close").addEventListener("click", () => find("viewer").close());
find("viewer-save").addEventListener("click", () => save(shown));

// Show the files of a session until `signal`; return a function that refreshes them.
export function showFiles(session, signal) {
  id = session;
  const refresh = () => list(signal);
  const timer = setInterval(() => document.hidden || refresh(), REFRESH_PERIOD);
  signal.addEventListener("abort", () => {
    clearInterval(timer);
    find("viewer").close();
  });
  enter("/home/wuying", refresh);
  find("places").onclick = (event) => event.target.dataset.path && enter(event.target.dataset.path, refresh);
  find("files").onclick = (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.kind === "up" || button.dataset.kind === "directory") enter(button.dataset.path, refresh, true);
    else if (button.dataset.kind === "file") view(button.dataset.path);
  };
  return refresh;
}

async function enter(directory, refresh, focus = false) {
  path = directory;
  find("files").replaceChildren();
  drawPlaces();
  await refresh();
  if (focus) find("files").querySelector("button")?.focus();
}

async function list(signal) {
  const wanted = path;
  const { entries, more, failure } = await ask(`/${id}/list`, { path }, signal)
    .then((answer) => answer.json())
    .catch((error) => ({ entries: null, failure: error.message }));
  // The user may have gone on meanwhile, and an answer that comes late must not replace the newer listing.
  if (signal.aborted || wanted !== path) return;
  find("files-none").hidden = entries?.length > 0 && !more;
  write(find("files-none"), failure ?? (more ? `and ${more} more` : "Empty."));
  if (entries) drawEntries(entries);
}

function drawPlaces() {
  const root = Object.keys(ROOTS).find((name) => path === name || path.startsWith(`${name}/`));
  const roots = Object.entries(ROOTS).map(([name, title]) => place(name, title, name === root));
  const below = path.slice(root.length).split("/").filter(Boolean);
  const steps = below.map((name, index) => place([root, ...below.slice(0, index + 1)].join("/"), name, false));
  find("places").replaceChildren(...roots, ...steps.flatMap((step) => [element("span", { className: "slash" }, "/"), step]));
}

function place(name, title, current) {
  const button = element("button", { className: current ? "place current" : "place" }, title);
  button.dataset.path = name;
  return button;
}

function drawEntries(entries) {
  const items = entries.map((entry) => ({ ...entry, path: `${path}/${entry.name}`, kind: kindOf(entry) }));
  if (!(path in ROOTS)) items.unshift({ name: "..", path: path.slice(0, path.lastIndexOf("/")), kind: "up", size: 0 });
  keep(find("files"), items, (item) => `${item.kind} ${item.name}`, makeEntry, updateEntry);
}

function kindOf(entry) {
  return entry.is_directory ? "directory" : entry.is_file ? "file" : "other";
}

function makeEntry(item) {
  const name = element("span", { className: "name" }, item.kind === "directory" ? `${item.name}/` : item.name);
  const button = element("button", { className: item.kind }, name, element("span", { className: "number" }));
  if (item.is_symlink) name.append(element("span", { className: "arrow" }, " → link"));
  Object.assign(button.dataset, { path: item.path, kind: item.kind });
  return element("li", {}, button);
}

function updateEntry(node, item) {
  const when = item.mtime ? new Date(item.mtime * 1000).toLocaleString() : "";
  write(node.firstChild.lastChild, item.kind === "file" ? size(item.size) : "");
  node.firstChild.title = when && `${item.name}, changed ${when}`;
}

async function view(file) {
  shown = file;
  write(find("viewer-title"), file);
  let text, note;
  try {
    const read = await (await ask(`/${id}/text`, { path: file })).json();
    text = read.text ?? "This is not text. Download it to look at it.";
    note = size(read.size) + (read.more ? `, of which the beginning is shown` : "");
  } catch (error) {
    [text, note] = [error.message, ""];
  }
  find("viewer-text").textContent = text;
  write(find("viewer-size"), note);
  if (!find("viewer").open) find("viewer").showModal();
}

async function save(file) {
  try {
    // A plain link cannot send the CSRF token in a header, so the script fetches the file.
    const content = await (await ask(`/${id}/file`, { path: file })).blob();
    const url = URL.createObjectURL(content);
    element("a", { href: url, download: file.slice(file.lastIndexOf("/") + 1) }).click();
    // Not at once: the browser may read the blob only after click() has returned.
    setTimeout(() => URL.revokeObjectURL(url), 60000);
    announce("Downloaded");
  } catch (error) {
    find("viewer-text").textContent = `The download broke off: ${error.message}`;
  }
}
