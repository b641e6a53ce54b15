// Runs in an isolated world of a page. A selector has parts joined by " >>> ", each a CSS selector below the shadow
// root or frame that the part before it leads to.
(operation, argument) => {
  const JOINT = " >>> ";
  const INTERACTIVE =
    "a[href], button, input:not([type=hidden]), select, textarea, summary, [contenteditable=''], [contenteditable=true]," +
    "[role=button], [role=link], [role=checkbox], [role=radio], [role=tab], [role=menuitem], [role=option]," +
    "[role=combobox], [role=switch], [role=textbox], [onclick], [tabindex]:not([tabindex='-1'])";

  const innerRoot = (element) => {
    if (element.shadowRoot) return element.shadowRoot;
    try {
      return element.contentDocument || null;
    } catch {
      return null; // a frame of another origin
    }
  };

  const pathOf = (element) => {
    const steps = [];
    for (let node = element; node && node.nodeType === 1; node = node.parentElement) {
      if (node.id && node.getRootNode().querySelectorAll(`#${CSS.escape(node.id)}`).length === 1) {
        steps.unshift(`#${CSS.escape(node.id)}`);
        break;
      }
      const same = node.parentNode ? [...node.parentNode.children].filter((other) => other.localName === node.localName) : [];
      const name = CSS.escape(node.localName);
      steps.unshift(same.length > 1 ? `${name}:nth-of-type(${same.indexOf(node) + 1})` : name);
    }
    return steps.join(" > ");
  };

  const selectorOf = (element) => {
    const root = element.getRootNode();
    const host = root.host || (root.defaultView && root.defaultView.frameElement);
    return host && root !== document ? selectorOf(host) + JOINT + pathOf(element) : pathOf(element);
  };

  const find = (selector) => {
    let root = document;
    let element = null;
    for (const part of selector.split(JOINT)) {
      element = root && root.querySelector(part);
      if (!element) throw new Error(`there is no element ${selector}`);
      root = innerRoot(element);
    }
    return element;
  };

  const isVisible = (element) => {
    const box = element.getBoundingClientRect();
    const style = element.ownerDocument.defaultView.getComputedStyle(element);
    return box.width > 0 && box.height > 0 && style.visibility !== "hidden" && style.display !== "none";
  };

  const clean = (text, length) => (text || "").replace(/\s+/g, " ").trim().slice(0, length);

  const nameOf = (element) => {
    const labelledBy = element.getAttribute("aria-labelledby");
    const labels = element.labels ? [...element.labels].map((label) => label.innerText).join(" ") : "";
    return clean(
      element.getAttribute("aria-label") ||
        (labelledBy && (element.getRootNode().getElementById(labelledBy.split(" ")[0]) || {}).innerText) ||
        labels ||
        element.innerText ||
        element.getAttribute("placeholder") ||
        element.getAttribute("alt") ||
        element.getAttribute("title") ||
        element.getAttribute("name") ||
        (element.type === "submit" && element.value) ||
        "",
      120
    );
  };

  const describe = (element) => {
    const described = {
      selector: selectorOf(element),
      kind: element.getAttribute("role") || (element.localName === "input" ? `input ${element.type}` : element.localName),
      name: nameOf(element),
    };
    // What is in a field for a password is nobody else's business, a model's neither.
    if ("value" in element && element.localName !== "button" && element.type !== "password") {
      described.value = clean(String(element.value), 200);
    }
    if (element.type === "checkbox" || element.type === "radio") described.checked = element.checked;
    if (element.localName === "select") described.options = [...element.options].slice(0, 50).map((option) => clean(option.text, 80));
    if (element.disabled) described.disabled = true;
    return described;
  };

  const collect = (root, found, limit) => {
    for (const element of root.querySelectorAll("*")) {
      if (found.length >= limit) return;
      if (element.matches(INTERACTIVE) && isVisible(element)) found.push(describe(element));
      const inner = innerRoot(element);
      if (inner) collect(inner, found, limit);
    }
  };

  const texts = (root) => {
    const own = root.body ? root.body.innerText : root.innerText || root.textContent;
    const inner = [...root.querySelectorAll("iframe, frame")].map(innerRoot).filter(Boolean);
    return [own, ...inner.map(texts)].join("\n");
  };

  const changed = (element) => {
    element.dispatchEvent(new Event("input", { bubbles: true }));
    element.dispatchEvent(new Event("change", { bubbles: true }));
  };

  const operations = {
    read: ({ selector, elements, text }) => {
      const found = [];
      const top = selector ? find(selector) : document;
      collect(top, found, elements);
      return {
        url: location.href,
        title: document.title.slice(0, 300),
        scroll: [Math.round(scrollY), innerHeight, document.documentElement.scrollHeight],
        elements: found,
        text: texts(top).replace(/[ \t]+/g, " ").replace(/\n\s*\n+/g, "\n").trim().slice(0, text),
      };
    },
    locate: ({ selector }) => {
      const element = find(selector);
      element.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
      const box = element.getBoundingClientRect();
      if (!box.width || !box.height) throw new Error("the element is not visible");
      let [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
      for (let view = element.ownerDocument.defaultView; view.frameElement; view = view.parent) {
        const frame = view.frameElement.getBoundingClientRect();
        [x, y] = [x + frame.left + view.frameElement.clientLeft, y + frame.top + view.frameElement.clientTop];
      }
      return { x, y };
    },
    focus: ({ selector }) => {
      const element = find(selector);
      element.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
      element.focus();
      if (element.select) element.select();
      else if (element.isContentEditable) element.ownerDocument.getSelection().selectAllChildren(element);
      else throw new Error("the element takes no text");
      return true;
    },
    choose: ({ selector, option }) => {
      const element = find(selector);
      if (element.localName !== "select") throw new Error("the element has no options");
      const wanted = [...element.options].find((one) => clean(one.text, 80) === option || one.value === option);
      if (!wanted) throw new Error(`there is no option ${option}`);
      element.value = wanted.value;
      changed(element);
      return true;
    },
    scroll: ({ x, y }) => {
      scrollBy({ left: x * innerWidth, top: y * innerHeight, behavior: "instant" });
      return true;
    },
    size: () => ({
      width: Math.min(Math.max(document.documentElement.scrollWidth, innerWidth), 10000),
      height: Math.min(Math.max(document.documentElement.scrollHeight, innerHeight), 10000),
    }),
    loaded: () => document.readyState === "complete",
  };
  return operations[operation](argument);
}
