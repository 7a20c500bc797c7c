// Marks: shown at once, sent in order by the queue, undone and redone.
let mine = []; // what was marked on this page, newest last: {entry, before, again}
let epoch = 0; // of marks: what was undone before a later mark cannot be redone
const undone = []; // what `redo` would do again, newest last: {query_id, image_ids, verdict}

const chosen = () => (inspected ? [inspected] : picks.size ? cards.filter((card) => picks.has(card)) : cards[current] ? [cards[current]] : []);
const unmarked = () => cards.filter((card) => !card.candidate.verdict);
const restCards = () => unmarked().filter((card) => card.seen);

const counts = () => {
  const open = board.browse ? 0 : restCards().length;
  rest.querySelector("span").replaceChildren(
    el("span", { class: "up-long" }, "Mark the "), "rest", el("span", { class: "up-long" }, " as misses"), ` (${open})`);
  rest.disabled = open === 0;
  rest.hidden = Boolean(board.browse) || board.understood === false; // such results say nothing, so neither would such marks
  align.hidden = board.browse || !all.some((card) => ["hit", "miss"].includes(card.candidate.verdict));
  plain.hidden = !board.aligned;
  drawPicked();
};

const put = (card, verdict) => {
  card.candidate.verdict = verdict;
  card.token += 1;
  paint(card);
};

// Where the server refuses, cards go back to what it has, unless they were judged once more since.
const restore = (tokens) => {
  tokens.forEach((token, card) => { if (card.token === token) put(card, card.stored); });
  counts();
  const first = [...tokens.keys()].find((card) => cards.includes(card));
  if (first && !inspected) select(first, true);
};

const mark = (some, verdict) => {
  const before = some.map((card) => [card, card.candidate.verdict]);
  some.forEach((card) => put(card, verdict));
  const tokens = new Map(some.map((card) => [card, card.token]));
  const again = { query_id: board.query_id, image_ids: some.map((card) => card.candidate.image_id), verdict };
  const op = newOp();
  const entry = queue.add(() => ask("mark", { op, ...again }), (reply) => {
    some.forEach((card) => { card.stored = verdict; });
    answer(reply);
  }, (error) => { restore(tokens); toast("error", error.message); });
  mine = [...mine.slice(-200), { entry, before, again }];
  undone.length = 0;
  epoch += 1;
  counts();
};

// Pressing the verdict that a picture has already keeps it.
const decide = (some, verdict) => {
  if (!some.length || board.browse) return;
  toast("info", "");
  const changed = some.filter((card) => card.candidate.verdict !== verdict);
  if (changed.length) mark(changed, verdict);
  say(some.length === 1 ? `Rank ${some[0].candidate.rank}: ${VERDICTS[verdict].label}` : `${plural(some.length, "picture")}: ${VERDICTS[verdict].label}`);
  if (picks.size && !inspected) {
    select(some.at(-1));
    pickNone();
  }
  if (inspected) showNext();
  else next();
};

// Take back what the picture with the frame, or the selection, has; where there is nothing, the last action.
const takeBack = () => {
  const some = chosen().filter((card) => card.candidate.verdict);
  if (!some.length || board.browse) { undo(); return; }
  mark(some, null);
  say(some.length === 1 ? `Rank ${some[0].candidate.rank}: mark taken back` : `${plural(some.length, "mark")} taken back`);
};

const markRest = () => {
  const some = restCards();
  if (!some.length || board.browse || board.understood === false) return;
  const unseen = unmarked().length - some.length;
  const left = folded().filter((card) => !card.candidate.verdict).length; // nothing is marked that nobody sees
  const text = [`Marked ${plural(some.length, "picture")} as misses.`,
    left ? `${plural(left, "folded near duplicate")} left as ${left === 1 ? "it was" : "they were"}.` : "",
    unseen ? `${unseen.toLocaleString("en")} further down left: not on screen so far.` : ""].filter(Boolean).join(" ");
  mark(some, "miss");
  say(text);
  toast("info", text, button("undo", "Undo", () => undo()));
};

const said = (text) => { toast("info", text); say(text); };

const goTo = (some) => {
  const seen = some.find((card) => cards.includes(card));
  if (!seen) return;
  if (inspected) show(seen);
  else select(seen, true);
};

const undo = () => {
  const last = mine.pop();
  if (last && last.again.query_id === board.query_id && queue.drop(last.entry)) { // it was not sent yet
    last.before.forEach(([card, verdict]) => put(card, verdict));
    undone.push(last.again);
    counts();
    said(`Undid ${plural(last.before.length, "mark")}.`);
    goTo(last.before.map(([card]) => card));
    return;
  }
  const tokens = new Map(all.map((card) => [card, card.token]));
  const query = board.query_id || null;
  const [op, then] = [newOp(), epoch];
  queue.add(() => ask("undo", { op, query_id: query }), (reply) => {
    if (reply.redo && then === epoch) undone.push(reply.redo);
    const touched = query !== (board.query_id || null) ? [] : all.filter((card) => // what was marked since is newer than the answer
      tokens.get(card) === card.token && (card.candidate.verdict || null) !== (reply.verdicts[card.candidate.image_id] || null));
    touched.forEach((card) => { card.stored = reply.verdicts[card.candidate.image_id] || null; put(card, card.stored); });
    counts();
    answer(reply);
    said(reply.undone.length === 0 ? "There is nothing left to undo."
      : touched.length === 0 ? `Undid ${plural(reply.undone.length, "mark")} of another search.`
        : `Undid ${plural(reply.undone.length, "mark")}.`);
    goTo(touched);
  }, (error) => toast("error", error.message));
};

const redo = () => {
  const op = newOp();
  let again = null;
  queue.add(() => {
    again ||= undone.pop(); // once, however often it is sent
    return again ? ask("mark", { op, ...again }) : {};
  }, (reply) => {
    if (!again) { said("There is nothing to redo."); return; }
    const touched = again.query_id === board.query_id ? again.image_ids.map(cardOf).filter(Boolean) : [];
    touched.forEach((card) => { card.stored = again.verdict; put(card, again.verdict); });
    counts();
    answer(reply);
    said(`${plural(again.image_ids.length, "mark")} redone.`);
    goTo(touched);
  }, (error) => toast("error", error.message));
};

// Re-ranking by the marks of this search: cards are kept, so that nothing flickers and no mark on its way is lost.
const realign = (aligned) => {
  const query = board.query_id;
  queue.add(() => ask("rerank", { query_id: query, aligned }), (reply) => {
    if (query !== board.query_id) return;
    const before = byId;
    board.aligned = aligned;
    all = [];
    putCards(reply.candidates.map((candidate) => before.get(candidate.image_id) || newCard(candidate)), reply.duplicates);
    if (!inspected) reveal(current);
    said(aligned ? "Unmarked results are re-ordered by your marks. Marked ones kept their places." : "Results are in the order of the search again.");
    drawFoot();
  }, (error) => toast("error", error.message));
};

const align = button("up", "Re-rank by my marks", () => realign(true), {
  class: "up-button up-folds", "data-act": "align", hidden: true, title: "Re-order the unmarked results by the hits and misses of this search; the model stays as it is",
});
const plain = button("back", "Order of the search", () => realign(false), { class: "up-button up-folds", "data-act": "plain", hidden: true });

// The bar
const iconButton = (name, label, sign, title, act) => keyed(el("button", { type: "button", class: "up-button up-icon-button", "data-act": name, "aria-label": label, onclick: act }, icon(sign)), title);
const rest = keyed(button("rest", "Mark the rest as misses", () => markRest(), { "data-act": "rest" }), "Every result that was on screen and is not marked becomes a miss ({rest})");
const undoButton = iconButton("undo", "Undo", "undo", "Undo my last action ({undo})", () => undo());
const redoButton = iconButton("redo", "Redo", "redo", "Redo what was undone ({redo})", () => redo());
const skipButton = iconButton("skip", "Skip", "skip", "Go to the next unmarked result ({skip})", () => skip());
actions.append(el("label", { class: "up-sizer" }, icon("picture"), sizer), undoButton, redoButton, skipButton, rest,
  iconButton("help", "Keys", "help", "Keys ({help})", () => help.showModal()));
