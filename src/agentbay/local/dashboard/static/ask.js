// Requests to the runtime. The CSRF token of the document goes with each, since the cookie alone gets no data.

import { find } from "./dom.js";

const meta = (name) => document.querySelector(`meta[name="${name}"]`).content;

export const scope = meta("agentbay-session"); // the id of the one session that may be viewed, "" for all
const CSRF_TOKEN = meta("agentbay-csrf-token");
const PAUSES = [500, 1000, 2000, 5000]; // milliseconds between two attempts to connect: a backoff

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function ask(path, body = {}, signal = undefined) {
  const answer = await fetch(`/view/data${path}`, {
    method: "POST",
    headers: { authorization: `Bearer ${CSRF_TOKEN}`, "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, said.Message ?? `The runtime answered with HTTP ${answer.status}.`);
}

// Call `take` with each event of the stream at `path`, and reconnect when the stream breaks off.
export async function follow(path, signal, take) {
  for (let failures = 0; !signal.aborted; failures += 1) {
    try {
      const answer = await ask(path, {}, signal);
      for await (const line of lines(answer.body)) {
        failures = 0;
        showConnection("live");
        showProblem("");
        if (take(line) === false) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status < 500) {
        showConnection("");
        if (error.status === 401) location.reload(); // to log in again
        // The service answers 400 for a session that does not exist any more.
        else if (error.status === 400) take({ ended: true });
        else showProblem(error.message);
        return;
      }
    }
    if (signal.aborted) return;
    showConnection("lost");
    if (failures) showProblem("The runtime does not answer. This page tries again until it does.");
    await new Promise((resolve) => setTimeout(resolve, PAUSES[Math.min(failures, PAUSES.length - 1)]));
  }
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

export function showConnection(state) {
  const mark = find("connection");
  mark.textContent = { live: "live", lost: "connecting" }[state] ?? "";
  mark.dataset.state = state;
}

export function showProblem(text) {
  const place = find("problem");
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
}
