// Cards of the wall: the picture is the card. What is known lies over it; verdicts appear on hover, focus and touch.
const name = (card) => {
  const { candidate } = card;
  const leader = leaders[candidate.image_id];
  return [board.browse ? "Picture" : `Rank ${candidate.rank}`, candidate.score === null ? null : `score ${candidate.score.toFixed(3)}`, candidate.camera,
    leader && `nearly the same as rank ${cardOf(leader).candidate.rank}`,
    isWeak(card) ? "weak match" : null,
    picks.has(card) ? "selected" : null,
    board.browse ? null : candidate.verdict ? VERDICTS[candidate.verdict].label : "not marked"].filter(Boolean).join(", ");
};

const verdictButtons = (act) =>
  Object.entries(VERDICTS).map(([verdict, { label, icon: sign, long }]) =>
    keyed(button(sign, label, () => act(verdict), { class: "up-button up-verdict", "data-verdict": verdict, "aria-pressed": "false" }), `${label} ({${verdict}}): ${long}`));

const press = (buttons, verdict) =>
  buttons.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.verdict === verdict)));

const makeCard = (card) => {
  const { candidate } = card;
  const leader = leaders[candidate.image_id];
  card.state = el("span", { class: "up-state" });
  card.buttons = board.browse ? [] : verdictButtons((verdict) => { select(card); decide([card], verdict); });
  card.picture = el("img", { alt: "", decoding: "async", draggable: "false" });
  card.photo = el("button", { type: "button", class: "up-photo", "aria-label": board.browse ? "Enlarge this picture" : `Enlarge rank ${candidate.rank}`,
    onclick: (event) => { if (!pickBy(card, event)) { select(card); inspect(card); } } }, card.picture);
  card.picture.addEventListener("error", () => card.photo.classList.add("up-no-picture"));
  card.fold = button("stack", "", () => { select(card); toggleFold(card); }, { class: "up-button up-fold", hidden: true });
  card.node = el(
    "article",
    { class: leader ? "up-card up-duplicate" : "up-card", "data-image": candidate.image_id, onfocusin: () => select(card, false) },
    card.photo,
    el("div", { class: "up-over" },
      board.browse ? null : el("span", { class: "up-rank" }, el("span", { class: "up-hash" }, "#"), String(candidate.rank)),
      candidate.score === null ? null : el("span", { class: "up-score", title: "Score: how well the picture fits, at most 1" }, candidate.score.toFixed(3))),
    card.state,
    el("div", { class: "up-under" },
      card.fold,
      card.weak = el("span", { class: "up-weak-tag" }),
      leader ? el("span", { class: "up-chip-over" }, `nearly #${cardOf(leader).candidate.rank}`) : null,
      candidate.camera ? el("span", { class: "up-camera", title: candidate.camera }, candidate.camera) : null),
    board.browse ? null : el("div", { class: "up-verdicts", role: "group", "aria-label": `Verdict on rank ${candidate.rank}` }, ...card.buttons),
  );
  paint(card);
};

const paint = (card) => {
  if (card.node) {
    const { verdict } = card.candidate;
    card.node.dataset.verdict = verdict || "";
    card.node.setAttribute("aria-label", name(card));
    card.node.classList.toggle("up-picked", picks.has(card));
    card.node.classList.toggle("up-is-weak", isWeak(card));
    card.node.classList.toggle("up-current", cards[current] === card);
    card.weak.textContent = card === weakFrom ? "Weak matches" : "";
    card.weak.classList.toggle("up-weak", card === weakFrom);
    card.weak.title = card === weakFrom ? weakText() : "";
    press(card.buttons, verdict);
    card.state.replaceChildren(...(verdict ? [icon(VERDICTS[verdict].icon), el("span", { class: "up-hidden" }, VERDICTS[verdict].label)] : []));
    drawFold(card);
    const stop = cards[current] === card ? 0 : -1; // one card at a time in the tab order: arrows move between them
    [card.node, card.photo, card.fold, ...card.buttons].forEach((one) => { one.tabIndex = stop; });
  }
  if (inspected === card) fillDialog();
};

// Weak matches are shown, not hidden. They are marked on the cards themselves, so that no row of the wall breaks.
const isWeak = (card) => !board.browse && !board.aligned && card !== all[0] && card.candidate.score < board.weak_below;
const weakText = () => `Weak matches from here: more than ${(board.weak_gap || 0).toFixed(3)} under the best score`;

const select = (card, focus = false) => {
  const before = cards[current];
  current = Math.max(0, cards.indexOf(card));
  if (before && before !== cards[current]) paint(before);
  if (!cards[current]) return;
  if (focus) reveal(current);
  paint(cards[current]);
  if (focus) cards[current].node.focus({ preventScroll: true });
};

const step = (by) => cards.length && select(cards[Math.min(cards.length - 1, Math.max(0, current + by))], true);
const stepRow = (by) => {
  const at = cards.length ? across(current, by) : -1;
  if (at >= 0) select(cards[at], true);
};

const order = () => [...cards.slice(current + 1), ...cards.slice(0, current)];
const next = () => {
  const found = order().find((card) => !card.candidate.verdict);
  if (found) select(found, true);
  else if (cards.length) foot.querySelector("button")?.focus();
};
const skip = () => {
  const found = order().find((card) => !card.candidate.verdict) || cards[current];
  if (found) select(found, true);
};
