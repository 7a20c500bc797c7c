// Keys of the result grid, and the dialog that names them. A visible button does the same as each of them.
const KEYS = [
  ["A", "Hit: fits the words, and is the person"], ["X", "Miss: does not fit the words"],
  ["W", "Wrong person: fits the words, but is somebody else"], ["Backspace U", "Take the mark back, or the last one"],
  ["Shift+X", "The rest are misses: all that were on screen"],
  ["Ctrl+Z", "Undo my last action"], ["Ctrl+Shift+Z", "Redo it"],
  ["Space", "Skip to the next unmarked result"], ["← ↑ → ↓", "Move between results"],
  ["Shift+← →", "Select several; verdicts then act on all of them"], ["Ctrl+A", "Select all that are loaded"],
  ["Enter", "Enlarge the result"], ["E", "Enlarged: why this picture"], ["D", "Show or fold near duplicates"],
  ["/", "Go to the description"], ["?", "This help"], ["Esc", "Close what is open, or select none"],
];
const help = dialog(
  "Keys",
  el("p", {}, "They act on the result with the frame, or on the selection, and rest while you type. With the mouse, Shift+click or drag a frame to select several."),
  el("dl", { class: "up-keys" }, ...KEYS.map(([key, text]) =>
    el("div", {}, el("dt", {}, ...key.split(" ").map((one) => el("kbd", {}, one))), el("dd", {}, text)))),
);

const PLAIN = {
  a: () => decide(chosen(), "hit"),
  x: () => decide(chosen(), "miss"),
  w: () => decide(chosen(), "wrong_person"),
  u: takeBack,
  Backspace: takeBack,
  " ": skip,
  ArrowLeft: () => (inspected ? show(cards[cards.indexOf(inspected) - 1]) : step(-1)),
  ArrowRight: () => (inspected ? show(cards[cards.indexOf(inspected) + 1]) : step(1)),
  ArrowUp: () => stepRow(-1),
  ArrowDown: () => stepRow(1),
  Enter: () => inspect(cards[current]),
  d: () => toggleFold(cards[current]),
  e: () => toggleWhy(inspected),
  Escape: () => { pickNone(); select(cards[current], true); },
};
const SHIFTED = {
  x: markRest,
  ArrowLeft: () => stretch(() => step(-1)),
  ArrowRight: () => stretch(() => step(1)),
  ArrowUp: () => stretch(() => stepRow(-1)),
  ArrowDown: () => stretch(() => stepRow(1)),
};
const IN_DIALOG = ["a", "x", "w", "u", "e", "Backspace", "ArrowLeft", "ArrowRight"];
const ANYWHERE = ["Backspace", "u"];

const withControl = (event, key) => {
  if (key === "z") return event.shiftKey ? redo : undo;
  if (key === "y" && !event.shiftKey) return redo;
  if (key === "a" && !event.shiftKey && cards.length && !inspected) return () => { pick(cards); say(`${plural(picks.size, "picture")} selected`); };
  return null;
};

onPage(document, "keydown", (event) => {
  if (event.defaultPrevented || event.isComposing || !shown(element) || typing(event.target) || help.open) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const inside = event.target === document.body || element.contains(event.target);
  if ((event.ctrlKey || event.metaKey) && !event.altKey) {
    const act = inside || key !== "a" ? withControl(event, key) : null;
    if (!act || event.repeat) return;
    event.preventDefault(); // else the browser would undo typing, and move the focus into the description
    act();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (!inside && !["?", "/"].includes(event.key)) return; // another control has the focus: its keys are its own
  if (event.key === "?") { event.preventDefault(); help.showModal(); return; }
  if (event.key === "/") {
    const box = document.querySelector("#up-caption textarea");
    if (box && !inspected) { event.preventDefault(); box.focus(); box.select(); }
    return;
  }
  const acts = event.shiftKey && Object.hasOwn(SHIFTED, key) ? SHIFTED : PLAIN;
  if (!Object.hasOwn(acts, key) || (inspected && (acts === SHIFTED || !IN_DIALOG.includes(key)))) return;
  if ([" ", "Enter"].includes(key) && event.target.closest?.("button, a, summary, input")) return; // presses that button
  if (event.target.closest?.("input[type=range]") && key.startsWith("Arrow")) return; // moves the slider
  if (key === "Escape" && !picks.size) return;
  if (!cards.length && !ANYWHERE.includes(key)) return;
  event.preventDefault();
  if (event.repeat && !key.startsWith("Arrow")) return;
  acts[key]();
});

watch("value", () => draw());
draw(true);
