// Selecting several pictures: Shift+click, Ctrl+click, dragging a frame, Shift+arrows. Verdict keys then act on all.
let anchor = null; // the card from which a range is counted
let pressedFrom = null; // the card with the frame as the mouse went down: the click itself moves the frame

const pick = (some) => {
  const before = picks;
  picks = new Set(some);
  for (const card of new Set([...before, ...picks])) if (before.has(card) !== picks.has(card)) paint(card);
  drawPicked();
};
const pickNone = () => { anchor = null; pick([]); };

const range = (from, to) => {
  const [a, b] = [cards.indexOf(from), cards.indexOf(to)].sort((one, other) => one - other);
  return a < 0 ? [to] : cards.slice(a, b + 1);
};

// Whether a click on a picture selects it instead of enlarging it.
const pickBy = (card, event) => {
  if (event.shiftKey) {
    anchor ||= pressedFrom || card;
    pick(range(anchor, card));
  } else if (event.ctrlKey || event.metaKey || picks.size) {
    if (!picks.size) anchor = card;
    pick(picks.has(card) ? [...picks].filter((one) => one !== card) : [...picks, card]);
  } else return false;
  select(card);
  return true;
};

const stretch = (move) => {
  if (!cards.length) return;
  anchor ||= cards[current];
  move();
  pick(range(anchor, cards[current]));
  say(`${plural(picks.size, "picture")} selected`);
};

const drawPicked = () => {
  pickedBar.hidden = !picks.size;
  bar.toggleAttribute("data-picking", picks.size > 0);
  if (!picks.size) { pickedBar.replaceChildren(); return; }
  const kept = document.activeElement?.closest?.("[data-part=picked]") && document.activeElement.dataset.verdict;
  const acts = board.browse ? [] : [...verdictButtons((verdict) => decide(chosen(), verdict)), keyed(button("undo", "Take back", () => takeBack()), "Take back the marks of these pictures ({back})")];
  if (board.may_forget) acts.push(button("cross", "Forget", () => forgetPicked(), { "data-act": "forget", title: "Erase these pictures from the gallery, with the marks on them" }));
  pickedBar.replaceChildren(el("b", {}, `${picks.size.toLocaleString("en")} selected`), ...acts,
    el("button", { type: "button", class: "up-button up-quiet", "aria-label": "Select none", title: "Select none (Esc)", onclick: () => { pickNone(); select(cards[current], true); } }, icon("cross")));
  if (kept) pickedBar.querySelector(`[data-verdict="${kept}"]`)?.focus();
};

// Erase the selected pictures for good: administrators only, after a question.
const forgetPicked = async () => {
  const some = cards.filter((card) => picks.has(card));
  const [count, these] = [plural(some.length, "picture"), some.length === 1 ? "it" : "them"];
  const sure = await confirmed(`Forget ${count}?`, `The files, the marks on ${these} and the exports that hold ${these} are erased from the disk. This cannot be undone.`, "Forget");
  if (!sure) return;
  const op = newOp();
  queue.add(() => ask("forget", { op, image_ids: some.map((card) => card.candidate.image_id) }), (reply) => {
    const gone = new Set(some);
    pickNone();
    all = all.filter((card) => !gone.has(card));
    board.total -= reply.pictures;
    byId = new Map(all.map((card) => [card.candidate.image_id, card]));
    leaders = Object.fromEntries(Object.entries(leaders).filter(([image, leader]) => cardOf(image) && cardOf(leader)));
    [list.style.height, current] = ["", 0];
    list.replaceChildren();
    arrange();
    drawHead();
    drawFoot();
    answer(reply);
    said(`${plural(reply.pictures, "picture")} and ${plural(reply.marks, "mark")} forgotten.`);
  }, (error) => toast("error", error.message));
};

// A frame drawn with the mouse
const frame = el("div", { class: "up-lasso", hidden: true });
element.append(frame);
let lasso = null;

const inside = (box) => {
  const start = list.getBoundingClientRect();
  return cards.filter((_, index) => {
    const { left, top, width, height } = places[index];
    const [x, y] = [start.left + window.scrollX + left, start.top + window.scrollY + top];
    return x < box.right && x + width > box.left && y < box.bottom && y + height > box.top;
  });
};

const stretchLasso = (event) => {
  const [left, right] = [lasso.x, event.pageX].sort((a, b) => a - b);
  const [top, bottom] = [lasso.y, event.pageY].sort((a, b) => a - b);
  Object.assign(frame.style, { left: `${left - window.scrollX}px`, top: `${top - window.scrollY}px`, width: `${right - left}px`, height: `${bottom - top}px` });
  frame.hidden = false;
  pick([...lasso.base, ...inside({ left, right, top, bottom })]);
  const edge = event.clientY < stickyHeight() + 30 ? -24 : event.clientY > window.innerHeight - 40 ? 24 : 0;
  if (edge) window.scrollBy({ top: edge, behavior: "instant" });
};

onPage(list, "pointerdown", (event) => {
  pressedFrom = cards[current] || null;
  if (event.pointerType !== "mouse" || event.button || event.target.closest(".up-verdicts, .up-fold")) return;
  lasso = { x: event.pageX, y: event.pageY, base: event.shiftKey || event.ctrlKey || event.metaKey ? [...picks] : [], drawn: false };
});
onPage(window, "pointermove", (event) => {
  if (!lasso) return;
  if (!lasso.drawn && Math.hypot(event.pageX - lasso.x, event.pageY - lasso.y) < 8) return;
  lasso.drawn = true;
  stretchLasso(event);
});
onPage(window, "pointerup", () => {
  if (lasso?.drawn) {
    frame.hidden = true;
    anchor = cards.find((card) => picks.has(card)) || null;
    if (anchor) select(anchor, true);
    const swallow = (event) => { event.stopPropagation(); event.preventDefault(); };
    list.addEventListener("click", swallow, { capture: true, once: true }); // the click at the end of a drag opens nothing
    setTimeout(() => list.removeEventListener("click", swallow, { capture: true }), 0);
  }
  lasso = null;
});
