// Keys of the result grid. A visible button does the same as each of them.
const VERDICT_ACTS = Object.fromEntries(Object.keys(VERDICTS).map((verdict) => [verdict, () => decide(chosen(), verdict)]));
const ACTS = {
  ...VERDICT_ACTS, undo: () => undo(), redo: () => redo(), rest: markRest, back: takeBack, skip,
  all: () => { pick(cards); say(`${plural(picks.size, "picture")} selected`); },
  open: () => inspect(cards[current]),
  fold: () => toggleFold(cards[current]),
  why: () => toggleWhy(inspected),
  help: () => help.showModal(),
  ask: () => {
    const box = document.querySelector("#up-caption textarea");
    box?.focus();
    box?.select();
  },
  ArrowLeft: () => (inspected ? show(cards[cards.indexOf(inspected) - 1]) : step(-1)),
  ArrowRight: () => (inspected ? show(cards[cards.indexOf(inspected) + 1]) : step(1)),
  ArrowUp: () => stepRow(-1),
  ArrowDown: () => stepRow(1),
  Escape: () => { pickNone(); select(cards[current], true); },
  "Shift+ArrowLeft": () => stretch(() => step(-1)),
  "Shift+ArrowRight": () => stretch(() => step(1)),
  "Shift+ArrowUp": () => stretch(() => stepRow(-1)),
  "Shift+ArrowDown": () => stretch(() => stepRow(1)),
};
const IN_DIALOG = [...Object.keys(VERDICTS), "back", "undo", "redo", "why", "help", "ArrowLeft", "ArrowRight"];
const WITHOUT_CARDS = ["back", "undo", "redo", "help", "ask"];

onPage(document, "keydown", (event) => {
  if (event.defaultPrevented || event.isComposing || !shown(element) || typing(event.target) || help.open || changer.open) return;
  const name = keyAction(event) || keyName(event);
  if (!Object.hasOwn(ACTS, name)) return;
  const anywhere = ["help", "ask"].includes(name) || ((event.ctrlKey || event.metaKey) && ["undo", "redo"].includes(name));
  if (!anywhere && event.target !== document.body && !element.contains(event.target)) return; // another control's keys are its own
  if (inspected ? !IN_DIALOG.includes(name) : !cards.length && !WITHOUT_CARDS.includes(name)) return;
  if (pressesButton(event)) return;
  if (event.target.closest?.("input[type=range]") && name.includes("Arrow")) return; // moves the slider
  if (name === "Escape" && !picks.size) return;
  event.preventDefault(); // else the browser would undo typing, and move the focus into the description
  if (event.repeat && !name.includes("Arrow")) return;
  ACTS[name]();
});

watch("value", () => draw());
draw(true);
