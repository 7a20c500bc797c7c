// Near duplicates in the result grid: folded into one card with their number, shown when asked for. In one function with
// result_grid.js, behind it.

const weakLine = el("p", { class: "up-weak", id: WEAK_ID }, el("span", {}));

const folds = button("stack", "", () => toggleFolds(), { class: "up-button up-folds", "data-act": "folds", hidden: true });

const alike = (card) => all.filter((one) => leaders[one.candidate.image_id] === card.candidate.image_id);
const folded = () => all.filter((one) => leaders[one.candidate.image_id] && !unfolded.has(leaders[one.candidate.image_id]));

// Put the cards into the list in the order shown: by rank, but unfolded duplicates behind what stands for them.
const arrange = () => {
  const kept = cards[current];
  cards = all.filter((card) => !leaders[card.candidate.image_id])
    .flatMap((card) => (unfolded.has(card.candidate.image_id) ? [card, ...alike(card)] : [card]));
  const weak = board.aligned ? -1 : cards.findIndex((card, index) => index > 0 && card.candidate.score < board.weak_below && !leaders[card.candidate.image_id]);
  const wanted = cards.map((card) => card.node);
  if (weak > 0) wanted.splice(weak, 0, weakLine);
  const nodes = new Set(wanted);
  [...list.children].filter((node) => !nodes.has(node)).forEach((node) => node.remove());
  wanted.forEach((node, index) => { if (list.children[index] !== node) list.insertBefore(node, list.children[index] || null); });
  all.filter((card) => !leaders[card.candidate.image_id]).forEach(drawFold);
  weakLine.firstChild.textContent = `Weak matches below: more than ${(board.weak_gap || 0).toFixed(2)} under the best score`;
  current = Math.max(0, cards.indexOf(kept));
  tabStops();
  counts();
  drawFolds();
};

const drawFold = (card) => {
  const count = alike(card).length;
  const shownNow = unfolded.has(card.candidate.image_id);
  card.fold.hidden = !count;
  card.fold.querySelector("span").textContent = shownNow ? "Fold" : `+${count} alike`;
  card.fold.title = `${plural(count, "near duplicate")} of this picture (D)`;
  card.fold.setAttribute("aria-expanded", String(shownNow));
  card.fold.setAttribute("aria-label", `${shownNow ? "Fold" : "Show"} ${plural(count, "near duplicate")} of rank ${card.candidate.rank}`);
};

const toggleFold = (card) => {
  const leader = card && (cardOf(leaders[card.candidate.image_id]) || card);
  if (!leader || !alike(leader).length) return;
  const id = leader.candidate.image_id;
  if (!unfolded.delete(id)) unfolded.add(id);
  arrange();
  select(leader, document.activeElement !== leader.fold);
  say(unfolded.has(id) ? `${plural(alike(leader).length, "near duplicate")} shown` : "Near duplicates folded");
};

const toggleFolds = () => {
  unfolded = folded().length ? new Set(Object.values(leaders)) : new Set();
  arrange();
};

const drawFolds = () => {
  const count = all.filter((card) => leaders[card.candidate.image_id]).length;
  folds.hidden = !count;
  folds.querySelector("span").textContent = folded().length
    ? `Show ${plural(folded().length, "folded near duplicate")}` : `Fold ${plural(count, "near duplicate")}`;
};
