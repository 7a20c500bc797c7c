// The dialogs of the result grid: a picture enlarged with all that is known of it, and the keys. Put behind the grid's
// own script, in one function with it.

// Enlarged picture

const large = dialog("Picture");
large.classList.add("up-inspect");
const largeBody = el("div", { class: "up-inspect-body" });
large.append(largeBody);
large.addEventListener("close", () => {
  const card = inspected;
  inspected = null;
  if (card) select(card, true);
});

// What the gallery knows of a picture, asked for when somebody looks.
const about = (card) => {
  if (card.about) {
    const { source, width, height, file, metadata } = card.about;
    return [["Source", source], ["Size", width ? `${width} × ${height}` : null], ["File", file], ...metadata];
  }
  ask("about", { image_id: card.candidate.image_id }).then((reply) => {
    card.about = reply;
    if (inspected === card) fillDialog();
  }, (error) => {
    card.about = { metadata: [["Details", error.message]] };
    if (inspected === card) fillDialog();
  });
  return [];
};

const likeThis = (card) => {
  large.close();
  trigger("again", { asked: { ...board.asked, text: "", without: "", picture: null, like: card.candidate.image_id, image_weight: 0.5 }, address: "" });
};

const fillDialog = () => {
  const card = inspected;
  const { candidate } = card;
  large.querySelector("h2").textContent = `Rank ${candidate.rank}`;
  const facts = [
    ["Score", candidate.score.toFixed(4)], ["Camera", candidate.camera], ["Person", candidate.pid],
    ["Taken", candidate.captured_at ? whenTaken(candidate.captured_at) : null],
    ...about(inspected),
    ["My mark", candidate.verdict ? VERDICTS[candidate.verdict].label : "none"],
    ["Version", board.version], ["Picture id", candidate.image_id],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  const buttons = verdictButtons((verdict) => decide(inspected, verdict));
  press(buttons, candidate.verdict);
  const index = cards.indexOf(inspected);
  const kept = document.activeElement?.dataset?.act || document.activeElement?.dataset?.verdict;
  const go = (act, by, sign, label) =>
    button(sign, label, () => show(cards[index + by]), { "data-act": act, disabled: !cards[index + by] });
  largeBody.replaceChildren(
    el("img", { class: "up-large", src: pictureUrl(candidate.image_id, "full"), alt: `Person ranked ${candidate.rank}` }),
    el("div", { class: "up-inspect-side" }, ...[
      board.caption ? el("p", { class: "up-inspect-caption" }, `“${board.caption}”`) : null,
      el("dl", { class: "up-facts up-facts-long" }, ...facts.map(([term, value]) =>
        el("div", {}, el("dt", {}, term), el("dd", { class: term === "Picture id" ? "up-id" : null }, String(value))))),
      el("div", { class: "up-verdicts", role: "group", "aria-label": "Verdict" }, ...buttons),
      button("stack", "More like this", () => likeThis(card), { "data-act": "like" }),
      el("div", { class: "up-turn" }, go("previous", -1, "left", "Previous"), go("next", 1, "right", "Next"))].filter(Boolean)));
  if (kept) largeBody.querySelector(`[data-act="${kept}"]:not([disabled]), [data-verdict="${kept}"]`)?.focus();
};

const show = (card) => {
  if (!card) return;
  inspected = card;
  fillDialog();
};

const inspect = (card) => {
  if (!card) return;
  show(card);
  if (!large.open) large.showModal();
};

// Keys

const KEYS = [
  ["A", "Hit: fits the words, and is the person"], ["X", "Miss: does not fit the words"],
  ["W", "Wrong person: fits the words, but is somebody else"], ["Space", "Skip to the next unmarked result"],
  ["Backspace Ctrl+Z", "Undo my last action"], ["← ↑ → ↓", "Move between results"], ["Enter", "Enlarge the result"],
  ["/", "Go to the description"], ["D", "Show or fold near duplicates"], ["?", "This help"], ["Esc", "Close what is open"],
];
const help = dialog(
  "Keys",
  el("p", {}, "They act on the result with the frame and rest while you type. Press a verdict again to take it back."),
  el("dl", { class: "up-keys" }, ...KEYS.map(([key, text]) =>
    el("div", {}, el("dt", {}, ...key.split(" ").map((one) => el("kbd", {}, one))), el("dd", {}, text)))),
);

const act = {
  a: () => decide(inspected || cards[current], "hit"),
  x: () => decide(inspected || cards[current], "miss"),
  w: () => decide(inspected || cards[current], "wrong_person"),
  " ": skip,
  Backspace: undo,
  ArrowLeft: () => (inspected ? show(cards[cards.indexOf(inspected) - 1]) : step(-1)),
  ArrowRight: () => (inspected ? show(cards[cards.indexOf(inspected) + 1]) : step(1)),
  ArrowUp: () => step(-perRow()),
  ArrowDown: () => step(perRow()),
  Enter: () => inspect(cards[current]),
  d: () => toggleFold(cards[current]),
};
const IN_DIALOG = ["a", "x", "w", "Backspace", "ArrowLeft", "ArrowRight"];

onPage(document, "keydown", (event) => {
  const undoes = (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey && event.key.toLowerCase() === "z";
  if (undoes && !event.defaultPrevented && !event.repeat && shown(element) && !typing(event.target) && !help.open) {
    event.preventDefault(); // else the browser would undo typing, and move the focus into the description
    undo();
    return;
  }
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (!shown(element) || typing(event.target) || help.open) return;
  const inside = event.target === document.body || element.contains(event.target);
  if (!inside && !["?", "/"].includes(event.key)) return; // another control has the focus: its keys are its own
  if (event.key === "?") { event.preventDefault(); help.showModal(); return; }
  if (event.key === "/") {
    const box = document.querySelector("#up-caption textarea");
    if (box && !inspected) { event.preventDefault(); box.focus(); box.select(); }
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!Object.hasOwn(act, key) || (inspected && !IN_DIALOG.includes(key))) return;
  if ([" ", "Enter"].includes(key) && event.target.closest?.("button, a, summary")) return; // presses that button
  if (!cards.length && key !== "Backspace") return;
  if (event.repeat && !key.startsWith("Arrow")) { event.preventDefault(); return; }
  event.preventDefault();
  act[key]();
});

watch("value", () => draw());
draw(true);
