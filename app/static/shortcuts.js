// Which key does what, on every page. A person may change the keys; this browser keeps what was changed.
const CHANGED_KEYS = "up-keys";
/** @type {[string, string[], string][]} */
const ACTIONS = [
  ["hit", ["A"], "Hit: fits the words, and is the person"], ["miss", ["X"], "Miss: does not fit the words"],
  ["wrong_person", ["W"], "Wrong person: fits the words, but is somebody else"],
  ["back", ["Backspace", "U"], "Take the mark back, or the last one"],
  ["rest", ["Shift+X"], "The rest are misses: all that were on screen"],
  ["undo", ["Ctrl+Z"], "Undo my last action"], ["redo", ["Ctrl+Shift+Z", "Ctrl+Y"], "Redo it"],
  ["skip", ["Space"], "Skip to the next unmarked result"], ["all", ["Ctrl+A"], "Select all that are loaded"],
  ["open", ["Enter"], "Enlarge the result"], ["why", ["E"], "Enlarged: why this picture"],
  ["fold", ["D"], "Show or fold near duplicates"], ["ask", ["/"], "Go to the description"], ["help", ["?"], "This help"],
];
const NAMED = ["Space", "Enter", "Backspace", "Delete", "Insert"];

// "Ctrl+Shift+Z", "Shift+X", "Space", "?": letters name Shift; for other signs it is part of typing them.
const keyName = (event) => {
  const upper = event.key.toUpperCase();
  const one = event.key === " " ? "Space" : upper.length === 1 ? upper : event.key;
  const shift = event.shiftKey && event.key.toLowerCase() !== upper;
  return [event.ctrlKey || event.metaKey ? "Ctrl+" : "", event.altKey ? "Alt+" : "", shift ? "Shift+" : "", one].join("");
};

// Why a key cannot do this, whatever the others do; empty where it can.
const unfit = (id, key) => {
  const usual = ACTIONS.find(([action]) => action === id)?.[1];
  if (usual?.includes(key)) return "";
  if (/^(Ctrl|Alt)\+./.test(key)) return `${key} belongs to the browser: press a key without Ctrl and Alt.`;
  const plain = key.replace(/^Shift\+(?=.)/, "");
  return [...plain].length === 1 || NAMED.includes(plain) ? ""
    : `${key} has its own use on the page or in the browser: press a letter, a digit or a sign.`;
};

// What a browser keeps may be anything: where it does not fit, the usual keys hold.
const readKeys = () => {
  const usual = new Map(ACTIONS.map(([id, some]) => [id, some]));
  try {
    const kept = Object.entries(JSON.parse(localStorage.getItem(CHANGED_KEYS) || "{}"));
    const fits = kept.every(([id, key]) => usual.has(id) && typeof key === "string" && !unfit(id, key));
    const keys = new Map([...usual, ...(fits ? kept.map(([id, key]) => /** @type {[string, string[]]} */ ([id, [key]])) : [])]);
    const every = [...keys.values()].flat();
    return new Set(every).size === every.length ? keys : usual;
  } catch {
    return usual;
  }
};

let keys = readKeys();
const actionOf = (name) => [...keys].find(([, some]) => some.includes(name))?.[0];
const keyAction = (event) => actionOf(keyName(event)) || actionOf(keyName(event).replace(/^Shift\+(?=.$)/, ""));
const pressesButton = (event, buttons = "button, a, summary, input") =>
  [" ", "Enter"].includes(event.key) && event.target.closest?.(buttons);

// A text that names keys: `keyed(node, "Undo my last action ({undo})")`. It follows when a key is changed.
const withKeys = (text) => text.replace(/\{(\w+)\}/g, (all, id) => keys.get(id)?.join(" or ") || all);
const keyed = (node, text, where = "title") => {
  node.dataset[where === "title" ? "keyTitle" : "keyText"] = text;
  showKeys(node);
  return node;
};
const showKeys = (node) => {
  if (node.dataset.keyTitle) node.title = withKeys(node.dataset.keyTitle);
  if (node.dataset.keyText) node.textContent = withKeys(node.dataset.keyText);
};
const showAllKeys = () => {
  keys = readKeys();
  element.querySelectorAll("[data-key-title], [data-key-text]").forEach(showKeys);
};
onPage(document, "up:keys", showAllKeys);
onPage(window, "storage", showAllKeys); // changed in another window
showAllKeys();
