// The help of keys, and the dialog that changes them.
const MOVES = [["← ↑ → ↓", "Move between results"], ["Shift+← →", "Select several; verdicts then act on all of them"], ["Esc", "Close what is open, or select none"]];
const keyRow = (some, text) => el("div", {}, el("dt", {}, ...some.map((one) => el("kbd", {}, one))), el("dd", {}, text));
const keyList = el("dl", { class: "up-keys" });
const help = dialog(
  "Keys",
  el("p", {}, "They act on the result with the frame, or on the selection, and rest while you type. With the mouse, Shift+click or drag a frame to select several."),
  keyList, el("div", { class: "up-dialog-foot" }, button("sliders", "Change keys", () => changeKeys(), { "data-act": "change-keys" })),
);
const changeList = el("ul", { class: "up-key-changes" });
const changeLine = el("p", { role: "status" });
const usualKeys = button("back", "Back to the usual keys", () => keepKeys({}), { "data-act": "usual-keys" });
const changer = dialog("Change keys",
  el("p", {}, "Press a button, then the key that should do this. The keys are kept in this browser, and are the same on every page."),
  changeLine, changeList, el("div", { class: "up-dialog-foot" }, usualKeys));

let awaits = ""; // the action whose key is pressed next
const short = (id) => ACTIONS.find(([action]) => action === id)[2].split(/[:,;]/)[0];

const drawKeys = () => {
  keyList.replaceChildren(...ACTIONS.map(([id, , text]) => keyRow(keys.get(id), text)), ...MOVES.map(([some, text]) => keyRow(some.split(" "), text)));
  changeList.replaceChildren(...ACTIONS.map(([id, , text]) => el("li", {}, el("span", {}, text),
    el("button", { type: "button", class: "up-button", "data-action": id, "aria-label": `${short(id)}: ${keys.get(id).join(" or ")}. Change`, onclick: () => awaitKey(id) },
      ...keys.get(id).map((one) => el("kbd", {}, one))))));
  usualKeys.disabled = ACTIONS.every(([id, usual]) => keys.get(id).join() === usual.join());
};

const buttonOf = (id) => changeList.querySelector(`[data-action="${id}"]`);
const endWaiting = (text = "") => {
  const was = awaits;
  awaits = "";
  drawKeys();
  notice(changeLine, "info", text);
  if (was) buttonOf(was).focus();
};
const awaitKey = (id) => {
  endWaiting();
  awaits = id;
  buttonOf(id).replaceChildren(el("span", {}, "Press a key …"));
  buttonOf(id).focus();
  notice(changeLine, "info", `Press the key for “${short(id)}”, or Esc to keep ${withKeys(`{${id}}`)}.`);
};

const keepKeys = (changed, text = "The usual keys are back.") => {
  try {
    localStorage.setItem(CHANGED_KEYS, JSON.stringify(changed));
  } catch {
    endWaiting("This browser keeps nothing for this page, so the keys stay as they are: allow it to keep data, or free some room.");
    return;
  }
  document.dispatchEvent(new Event("up:keys")); // every page reads them again
  endWaiting(text);
};

const setKey = (id, key) => {
  const other = [...keys].find(([action, some]) => action !== id && some.includes(key));
  const why = other ? `${key} is taken by “${short(other[0])}”: press another key, or change that one first.` : unfit(id, key);
  if (why) { notice(changeLine, "error", why); return; }
  const changed = Object.fromEntries(ACTIONS.filter(([action, usual]) => keys.get(action).join() !== usual.join()).map(([action]) => [action, keys.get(action)[0]]));
  keepKeys({ ...changed, [id]: key }, `${key} is the key for “${short(id)}” now.`);
};

let caught = ""; // its release must not press the button that has the focus
changer.addEventListener("keydown", (event) => {
  if (!awaits || event.isComposing || ["Shift", "Control", "Alt", "AltGraph", "Meta", "CapsLock"].includes(event.key)) return;
  if (event.key === "Tab") { endWaiting(); return; }
  event.preventDefault();
  if (event.repeat) return;
  caught = event.key;
  if (event.key === "Escape") endWaiting();
  else setKey(awaits, keyName(event));
});
changer.addEventListener("keyup", (event) => {
  if (event.key === caught) event.preventDefault();
  caught = "";
});
changer.addEventListener("close", () => endWaiting());

const changeKeys = () => {
  help.close();
  changer.showModal();
};
onPage(document, "up:keys", drawKeys);
onPage(window, "storage", (event) => { if (event.key === CHANGED_KEYS) drawKeys(); });
drawKeys();
