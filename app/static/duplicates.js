// Near duplicates in the result grid: folded into one card with their number, shown when asked for.
const folds = button("stack", "", () => toggleFolds(), { class: "up-button up-folds", "data-act": "folds", hidden: true });

const alike = (card) => all.filter((one) => leaders[one.candidate.image_id] === card.candidate.image_id);
const folded = () => all.filter((one) => leaders[one.candidate.image_id] && !unfolded.has(leaders[one.candidate.image_id]));

// Put the cards into the order shown: by rank, but unfolded duplicates behind what represents them.
const arrange = () => {
  const kept = cards[current];
  const behind = new Map();
  for (const card of all) {
    const leader = leaders[card.candidate.image_id];
    if (leader) behind.set(leader, [...(behind.get(leader) || []), card]);
  }
  cards = all.filter((card) => !leaders[card.candidate.image_id])
    .flatMap((card) => (unfolded.has(card.candidate.image_id) ? [card, ...(behind.get(card.candidate.image_id) || [])] : [card]));
  weakFrom = cards.find((card) => isWeak(card) && !leaders[card.candidate.image_id]) || null;
  current = Math.max(0, cards.indexOf(kept));
  picks = new Set([...picks].filter((card) => cards.includes(card)));
  arrangeWall();
  all.forEach((card) => { if (card.node) paint(card); });
  counts();
  drawFolds();
};

const drawFold = (card) => {
  const count = Object.keys(leaders).length ? alike(card).length : 0;
  const shownNow = unfolded.has(card.candidate.image_id);
  card.fold.hidden = !count;
  card.fold.querySelector("span").textContent = shownNow ? "Fold" : `+${count} alike`;
  keyed(card.fold, `${plural(count, "near duplicate")} of this picture ({fold})`);
  card.fold.setAttribute("aria-expanded", String(shownNow));
  card.fold.setAttribute("aria-label", `${shownNow ? "Fold" : "Show"} ${plural(count, "near duplicate")} of rank ${card.candidate.rank}`);
};

const toggleFold = (card) => {
  const leader = card && (cardOf(leaders[card.candidate.image_id]) || card);
  if (!leader || !alike(leader).length) return;
  const id = leader.candidate.image_id;
  const onFold = document.activeElement === leader.fold;
  if (!unfolded.delete(id)) unfolded.add(id);
  arrange();
  select(leader, !onFold);
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
