// Helpers for the document. Data from a session becomes text nodes only, never markup (against XSS).

export const find = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Change the text only if it differs, so that the user's selection stays.
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// The same for text that grows: append what is new, and stay at the end if that was in view.
export function extend(node, text) {
  const before = node.textContent;
  if (before === text) return;
  const atEnd = node.scrollHeight - node.scrollTop - node.clientHeight < 8;
  if (before && text.startsWith(before)) node.firstChild.appendData(text.slice(before.length));
  else node.textContent = text;
  if (atEnd) node.scrollTop = node.scrollHeight;
}

const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*(?:[@-~]|$)|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)|[ -/]*[0-~]?)/g;

// Return the text that a terminal would show, without escape sequences and what was overwritten.
export function plain(output) {
  const lines = output.replace(ESCAPES, "").replace(/\r+\n/g, "\n").split("\n");
  const last = (text) => text.replace(/\r+$/, "").replace(/^.*\r/s, "");
  return lines.map((text) => rubbed(last(text)).replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "")).join("\n").trimEnd();
}

function rubbed(text) {
  for (let before = ""; before !== text; ) [before, text] = [text, text.replace(/[^\x08]\x08/g, "")];
  return text;
}

// Make the children of `parent` those of `items`, in their order, and keep the ones that are there already.
export function keep(parent, items, key, make, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = known.get(name);
    known.delete(name);
    if (!child) {
      child = make(item);
      child.dataset.key = name;
    }
    update?.(child, item);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of known.values()) child.remove();
}

// Move the focus among what matches `selector` by the arrow keys, and to its ends.
export function arrows(container, selector) {
  container.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !event.target.matches(selector)) return;
    const all = [...container.querySelectorAll(selector)].filter((item) => item.offsetParent);
    const here = all.indexOf(event.target);
    const next = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: all.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    all[Math.max(0, Math.min(next, all.length - 1))].focus();
  });
}

export function announce(text) {
  find("news").textContent = text;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function size(bytes) {
  let unit = 0;
  for (; bytes >= 1000 && unit < UNITS.length - 1; unit += 1) bytes /= 1024;
  return `${bytes.toFixed(unit && bytes < 10 ? 1 : 0)} ${UNITS[unit]}`;
}

export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  return age(seconds);
}

export function age(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export const percent = (load) => `${Math.round(load * 100)} %`;

export function stateMark(state) {
  return element("span", { className: `state ${state.toLowerCase()}` }, state.toLowerCase());
}

export function labelMarks(labels) {
  const texts = Object.entries(labels).map(([name, value]) => (value ? `${name}=${value}` : name));
  return texts.map((text) => element("span", { className: "label", title: text }, text));
}
