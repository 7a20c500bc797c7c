// Shared by every component: put in front of each component's own script, so it runs inside Gradio's
// js_on_load function with `element`, `trigger`, `props`, `server` and `watch` in scope.
// Data never becomes markup here: text goes through textContent, pictures through URLs built from an id.
"use strict";

const ICONS = {
  check: "M4 12.5l5 5L20 6.5",
  cross: "M6 6l12 12M18 6L6 18",
  other: "M12 3a4 4 0 1 0 0 8a4 4 0 0 0 0-8M4.5 20.5c.6-4 3.6-6 7.5-6c1.2 0 2.3.2 3.2.6M16 16l5 5M21 16l-5 5",
  redo: "M15 6l5 5l-5 5M19.5 11H10a5.5 5.5 0 0 0 0 11h2",
  tick: "M4 12.5l5 5L20 6.5",
  sliders: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.5v5M9 14.5v5",
  undo: "M9 6L4 11l5 5M4.5 11H14a5.5 5.5 0 0 1 0 11h-2",
  skip: "M6 5l8 7l-8 7zM18 5v14",
  help: "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 17.6v.1M12 2.5a9.5 9.5 0 1 0 0 19a9.5 9.5 0 0 0 0-19",
  zoom: "M11 4a7 7 0 1 0 0 14a7 7 0 0 0 0-14M16 16l5 5M11 8v6M8 11h6",
  rest: "M4 7l8 8M12 7l-8 8M15 7h6M15 12h6M15 17h6",
  more: "M12 5v14M6 13l6 6l6-6",
  left: "M15 5l-7 7l7 7",
  right: "M9 5l7 7l-7 7",
  alert: "M12 3.5L22 20.5H2zM12 10v5M12 17.6v.1",
  info: "M12 2.5a9.5 9.5 0 1 0 0 19a9.5 9.5 0 0 0 0-19M12 11v5.5M12 7.4v.1",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13M15.5 15.5L21 21",
  learn: "M4 19V9M10 19V5M16 19v-7M22 19H2",
  back: "M9 6L4 11l5 5M4.5 11H20",
  up: "M12 20V5M6 11l6-6l6 6",
  picture: "M3.5 5h17v14h-17zM3.5 16l5-5l4.5 4.5l2.5-2.5l5 4.5M15.5 9.2v.1",
  minus: "M12 2.5a9.5 9.5 0 1 0 0 19a9.5 9.5 0 0 0 0-19M8 12h8",
  plus: "M12 5v14M5 12h14",
  filter: "M3.5 5h17l-6.5 8v6l-4-2.5V13z",
  swap: "M4 8h15M15 4l4 4l-4 4M20 16H5M9 12l-4 4l4 4",
  tiles: "M3 4h8v7H3zM13 4h8v7h-8zM3 13h8v7H3zM13 13h8v7h-8z",
  sides: "M4 5h6v14H4zM14 5h6v14h-6z",
  stack: "M4 8h12v12H4zM8 4h12v12",
};

const VERDICTS = {
  hit: { label: "Hit", icon: "check", long: "fits the words and is the person" },
  miss: { label: "Miss", icon: "cross", long: "does not fit the words" },
  wrong_person: { label: "Wrong person", icon: "other", long: "fits the words, but is somebody else" },
};

const icon = (name) => {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "up-icon");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
};

// el("button", {class: "x", "aria-label": "y", onclick: f}, child, "text", …): attributes and text, never markup.
const el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
};

const button = (name, label, onclick, attributes = {}) =>
  el("button", { type: "button", class: "up-button", onclick, ...attributes }, name ? icon(name) : null, el("span", {}, label));

// Relative to the page, so that it also works below a path and behind a proxy.
const pictureUrl = (id, size) => new URL(`picture/${encodeURIComponent(id)}?size=${size}`, document.baseURI).href;

const plural = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many || `${one}s`}`;
const percent = (fraction) => `${(100 * fraction).toFixed(1)} %`;

const when = (iso) => {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return String(iso);
  const day = date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
  const time = date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  return `${day}, ${time}`;
};

// When a picture was taken, in UTC as the filters have it: a camera writes its own clock's time, without a zone.
const whenTaken = (iso) => {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return String(iso);
  const day = date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
  const time = date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", timeZone: "UTC" });
  return `${day}, ${time} UTC`;
};

const duration = (seconds) => {
  const whole = Math.max(0, Math.round(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
};

// Ask the server; a refusal and a lost connection both become an Error whose message is for people.
const ask = async (name, payload) => {
  const reply = await server[name](payload);
  if (!reply) throw Object.assign(new Error("The server did not answer: check that the app still runs, then try again."), { lost: true });
  if (!reply.ok) throw new Error(reply.message);
  return reply;
};

const typing = (target) =>
  target instanceof Element &&
  (target.closest("input, textarea, select, [role=textbox], [role=combobox]") !== null || target.isContentEditable);

const shown = (node) => node.isConnected && node.getClientRects().length > 0;

// A page-wide listener that goes when Gradio takes the component off the page.
const onPage = (target, type, listener) => {
  const guarded = (event) => (element.isConnected ? listener(event) : target.removeEventListener(type, guarded));
  target.addEventListener(type, guarded);
};

const dialog = (title, ...children) => {
  const heading = `up-title-${Math.random().toString(36).slice(2)}`;
  const close = el("button", { type: "button", class: "up-button up-quiet up-close", "aria-label": "Close" }, icon("cross"));
  const box = el(
    "dialog",
    { class: "up-dialog", "aria-labelledby": heading },
    el("div", { class: "up-dialog-head" }, el("h2", { id: heading }, title), close),
    ...children,
  );
  close.addEventListener("click", () => box.close());
  box.addEventListener("click", (event) => event.target === box && box.close());
  element.append(box);
  return box;
};

// Ask before doing what cannot simply be undone. Resolves to true or false.
const confirmed = (title, text, action) =>
  new Promise((resolve) => {
    let answer = false;
    const yes = button(null, action, () => { answer = true; box.close(); }, { class: "up-button up-primary" });
    const no = button(null, "Keep as it is", () => box.close());
    const box = dialog(title, el("p", {}, text), el("div", { class: "up-dialog-foot" }, no, yes));
    box.addEventListener("close", () => { box.remove(); resolve(answer); });
    box.showModal();
    no.focus();
  });

// "`mini` serves" -> a node for each part, what stands between backticks as code.
const coded = (text) => text.split("`").map((piece, index) => (index % 2 ? el("code", {}, piece) : piece));

// The message line of a component: it stays until the next one.
const notice = (line, kind, text, ...actions) => {
  line.className = `up-notice up-notice-${kind}`;
  line.hidden = !text;
  line.replaceChildren();
  if (text) line.append(icon(kind === "error" ? "alert" : "info"), el("span", { class: "up-notice-text" }, ...coded(text)), ...actions);
};
