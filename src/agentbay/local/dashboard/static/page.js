// Shows the view that the address names, and handles the keys that work everywhere.

import { find } from "./dom.js";
import { scope, showConnection, showProblem } from "./ask.js";
import { escapeList, showList } from "./list.js";
import { showSession } from "./session.js";

const HOME = "/view";

// A window with an opener could be scripted by it. Nobody opens the dashboard in this way, so it does not show anything.
if (window.opener !== null) {
  document.documentElement.replaceChildren();
  throw new Error("The dashboard does not open in a window that another page holds.");
}

let leaving = new AbortController();

function show() {
  leaving.abort();
  leaving = new AbortController();
  showProblem("");
  showConnection("lost");
  find("list").hidden = find("one").hidden = true;
  const id = location.pathname.match(/^\/view\/sessions\/([^/]+)$/)?.[1];
  if (id) showSession(id, leaving.signal);
  else showList(leaving.signal);
}

function go(path) {
  history.pushState(null, "", path);
  show();
}

addEventListener("popstate", show);
// A page restored from the back/forward cache has lost its event stream.
addEventListener("pageshow", (event) => event.persisted && show());

addEventListener("click", (event) => {
  const link = event.target.closest?.("a");
  if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (scope || link.origin !== location.origin || !link.pathname.startsWith(HOME)) return;
  event.preventDefault();
  go(link.pathname);
});

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const onList = !find("list").hidden;
  if (event.key === "Escape") {
    if (onList) escapeList();
    else if (!scope) go(HOME);
  } else if (event.key === "/" && onList && event.target !== find("filter")) {
    event.preventDefault();
    find("filter").focus();
  } else if (event.key === "ArrowDown" && [document.body, find("name")].includes(event.target)) {
    const first = find(onList ? "rows" : "log").querySelector("a, summary");
    if (first) event.preventDefault();
    first?.focus();
  }
});

show();
