// The player of what a session's browser has shown. Its file is read as data: each line is one frame in JSON.

import { element, find, size, write } from "./dom.js";
import { ask } from "./ask.js";

const FILE = "/home/wuying/record/frames.js";
const [START, END] = ["frame(", ");"]; // around the JSON of a line, so that the player in the session can run the file
const IMAGE = /^[A-Za-z0-9+/]+={0,2}$/;
const LONGEST_PAUSE = 2000; // milliseconds between two frames, however long nothing has changed

let id = "";
let frames = []; // [seconds since 1970, number of the page, JPEG in base64]
let chosen = []; // those of the page that is shown
let timer = 0;

find("record-load").addEventListener("click", load);
find("record-page").addEventListener("change", choose);
find("record-place").addEventListener("input", show);
find("record-play").addEventListener("click", () => (timer ? stop() : play()));

export function showRecord(session, signal) {
  id = session;
  frames = [];
  find("record").hidden = find("record-player").hidden = true;
  write(find("record-note"), "");
  signal.addEventListener("abort", stop);
}

async function load() {
  stop();
  try {
    const text = await (await ask(`/${id}/file`, { path: FILE })).text();
    frames = text.split("\n").flatMap(parse);
    write(find("record-note"), frames.length ? `${size(text.length)}, pictures: ${frames.length}` : "Nothing was shown yet.");
  } catch (error) {
    write(find("record-note"), error.message);
  }
  const pages = [...new Set(frames.map((frame) => frame[1]))];
  find("record-page").replaceChildren(...pages.map((page) => element("option", {}, String(page))));
  find("record-player").hidden = !frames.length;
  choose();
}

// Return the frame of a line, or nothing: the session may have written anything into the file.
function parse(line) {
  if (!line.startsWith(START) || !line.endsWith(END)) return [];
  try {
    const [seconds, page, image] = JSON.parse(line.slice(START.length, -END.length));
    return Number.isFinite(seconds) && Number.isInteger(page) && IMAGE.test(image) ? [[seconds, page, image]] : [];
  } catch {
    return [];
  }
}

function choose() {
  stop();
  chosen = frames.filter((frame) => String(frame[1]) === find("record-page").value);
  find("record-place").max = Math.max(chosen.length - 1, 0);
  find("record-place").value = 0;
  show();
}

function show() {
  const place = Number(find("record-place").value);
  if (!chosen[place]) return;
  const [seconds, , image] = chosen[place];
  find("record-image").src = `data:image/jpeg;base64,${image}`;
  write(find("record-time"), `${new Date(seconds * 1000).toLocaleString()}, ${place + 1} of ${chosen.length}`);
}

function play() {
  if (Number(find("record-place").value) >= chosen.length - 1) find("record-place").value = 0;
  write(find("record-play"), "Stop");
  step();
}

function step() {
  const place = Number(find("record-place").value);
  if (!chosen[place + 1]) return stop();
  const pause = Math.min((chosen[place + 1][0] - chosen[place][0]) * 1000, LONGEST_PAUSE);
  timer = setTimeout(() => {
    find("record-place").value = place + 1;
    show();
    step();
  }, pause);
}

function stop() {
  clearTimeout(timer);
  timer = 0;
  write(find("record-play"), "Play");
}
