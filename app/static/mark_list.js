// My marks, grouped by description, newest first. `props.value` is what app/pages/marks_page.py calls a list of marks.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const [chips, line, list, live] = ["chips", "line", "list", "live"].map(part);
const PAGE = 120;

let marks = [];
let chosen = "all";
let room = PAGE;

const chosenMarks = () => marks.filter((mark) => chosen === "all" || mark.verdict === chosen);
const keyOf = (mark) => `${mark.query_id}-${mark.image_id}`;
const tileOf = (key) => list.querySelector(`[data-key="${key}"]`);

const changed = (mark, verdict, tally) => document.dispatchEvent(new CustomEvent("up:mark-changed", {
  detail: { image_id: mark.image_id, query_id: mark.query_id, caption: mark.caption, by_picture: mark.by_picture, verdict, tally },
}));

// Marks of one description: those by a picture stay by themselves.
const groupsOf = (some) => {
  const groups = new Map();
  for (const mark of some) {
    const key = mark.by_picture ? mark.query_id : mark.caption;
    groups.set(key, [...(groups.get(key) || []), mark]);
  }
  return [...groups.values()];
};

const failed = (error) => { notice(line, "error", error.message); draw(); };

// Another verdict on a picture that was marked.
const judge = (mark, verdict) => {
  if (mark.verdict === verdict) return;
  mark.stored ??= mark.verdict; // what the server has
  const act = document.activeElement?.dataset?.verdict;
  mark.verdict = verdict;
  redraw(mark, act);
  const op = newOp();
  queue.add(() => ask("judge", { op, query_id: mark.query_id, image_id: mark.image_id, verdict }), (reply) => {
    mark.stored = verdict;
    changed(mark, verdict, reply.tally);
    live.textContent = `Now ${VERDICTS[verdict].label}`;
  }, (error) => { if (mark.verdict === verdict) mark.verdict = mark.stored; failed(error); });
};

const redraw = (mark, act) => {
  const old = tileOf(keyOf(mark));
  if (!old) return;
  const focused = old.contains(document.activeElement);
  const tile = makeTile(mark);
  old.replaceWith(tile);
  drawChips();
  if (focused) (act ? tile.querySelector(`button[data-verdict="${act}"]`) : tile)?.focus();
};

// Some marks of one description are taken back together; the focus goes to what came after them.
const takeBack = (some) => {
  const keys = new Set(some.map(keyOf));
  const tiles = [...list.querySelectorAll(".up-mark")];
  const at = tiles.findIndex((tile) => keys.has(tile.dataset.key));
  const after = tiles.slice(at).find((tile) => !keys.has(tile.dataset.key)) || tiles.slice(0, Math.max(0, at)).at(-1);
  const focused = list.contains(document.activeElement);
  const was = marks;
  marks = marks.filter((mark) => !keys.has(keyOf(mark)));
  draw();
  if (focused) ((after && tileOf(after.dataset.key)) || chips.querySelector("button"))?.focus();
  const byQuery = new Map();
  for (const mark of some) byQuery.set(mark.query_id, [...(byQuery.get(mark.query_id) || []), mark]);
  for (const [query, those] of byQuery) {
    const op = newOp();
    queue.add(() => ask("take_back", { op, query_id: query, image_ids: those.map((mark) => mark.image_id) }), (reply) => {
      those.forEach((mark) => changed(mark, null, reply.tally));
      live.textContent = `${plural(those.length, "mark")} taken back`;
    }, (error) => { marks = was.filter((mark) => marks.includes(mark) || those.includes(mark)); failed(error); });
  }
};

const takeBackAll = async (some, name) => {
  const sure = some.length < 2 || await confirmed(`Take back ${plural(some.length, "mark")}?`, `What you said of these results for ${name} no longer holds. Undo on the Search page brings it back.`, "Take back");
  if (sure) takeBack(some);
};

// The same keys as on every page act on the picture that has the focus.
onPage(element, "keydown", (event) => {
  const action = keyAction(event);
  if (event.repeat || pressesButton(event) || !(action in VERDICTS || action === "back")) return;
  const tile = event.target.closest(".up-mark");
  const mark = tile && marks.find((one) => tile.dataset.key === keyOf(one));
  if (!mark) return;
  event.preventDefault();
  if (action === "back") takeBack([mark]);
  else judge(mark, action);
});

const makeTile = (mark) => {
  const { label, icon: sign } = VERDICTS[mark.verdict];
  const acts = Object.entries(VERDICTS).map(([verdict, { label: text, icon: name }]) =>
    keyed(el("button", { type: "button", class: "up-button up-verdict", "data-verdict": verdict, "aria-label": text, "aria-pressed": String(mark.verdict === verdict), onclick: () => judge(mark, verdict) }, icon(name)), `${text} ({${verdict}})`));
  const back = keyed(el("button", { type: "button", class: "up-button up-back", "aria-label": `Take back: ${label}, rank ${mark.rank}`, onclick: () => takeBack([mark]) }, icon("undo")), "Take back ({back})");
  return el("li", { class: "up-mark", tabindex: -1, "data-verdict": mark.verdict, "data-key": keyOf(mark), title: `${when(mark.marked_at)} · rank ${mark.rank} · score ${mark.score.toFixed(3)} · ${mark.version}` },
    el("img", { src: pictureUrl(mark.image_id, "thumb"), alt: `Person marked ${label.toLowerCase()}, rank ${mark.rank}`, width: 128, height: 384, loading: "lazy" }),
    el("p", { class: "up-badge", "data-verdict": mark.verdict }, icon(sign), el("span", {}, label)),
    el("div", { class: "up-mark-acts", role: "group", "aria-label": `Verdict on rank ${mark.rank}` }, ...acts, back));
};

const makeGroup = (some) => {
  const [first] = some;
  const name = [first.caption ? `“${first.caption}”` : "", first.by_picture ? "by a picture" : ""].filter(Boolean).join(" ");
  return el("li", { class: "up-mark-group" },
    el("div", { class: "up-section-head" },
      el("h2", { class: "up-mark-caption" }, first.by_picture ? name : el("a", { href: `?q=${encodeURIComponent(first.caption)}`, title: "Search for this again" }, name)),
      el("div", { class: "up-acts" }, el("span", { class: "up-fine" }, `${plural(some.length, "mark")}, last ${when(first.marked_at)}`),
        !first.by_picture && some.some(({ verdict }) => verdict === "hit")
          ? el("a", { class: "up-button", href: `?${new URLSearchParams({ tab: "person", q: first.caption })}`, "data-act": "person", "aria-label": `All pictures of the person: ${name}` }, icon("stack"), el("span", {}, "The person")) : null,
        button("undo", some.length < 2 ? "Take back" : "Take back all", () => takeBackAll(some, name), { "data-act": "all" }))),
    el("ul", { class: "up-mark-tiles" }, ...some.map(makeTile)));
};

const drawChips = () => {
  const names = [["all", "All", null], ...Object.entries(VERDICTS).map(([verdict, { label, icon: sign }]) => [verdict, label, sign])];
  chips.replaceChildren(...names.map(([verdict, label, sign]) => {
    const count = verdict === "all" ? marks.length : marks.filter((mark) => mark.verdict === verdict).length;
    return button(sign, `${label} ${count}`, () => { chosen = verdict; room = PAGE; draw(); chips.querySelector(`[data-filter="${verdict}"]`).focus(); },
      { class: "up-button up-filter", "data-filter": verdict, "aria-pressed": String(chosen === verdict) });
  }));
};

const draw = () => {
  drawChips();
  const some = chosenMarks();
  const rows = groupsOf(some.slice(0, room)).map(makeGroup);
  if (some.length > room) {
    rows.push(el("li", { class: "up-more" }, button("more", `Show ${Math.min(PAGE, some.length - room)} more`, () => { room += PAGE; draw(); })));
  }
  if (!some.length) {
    rows.push(el("li", { class: "up-empty" }, icon("check"),
      el("h2", {}, marks.length ? "No such marks" : "No marks yet"),
      el("p", {}, marks.length ? "Choose another verdict above." : "Search for a person and say of the results whether they are a hit or a miss. Your marks are listed here, and each can be taken back.")));
  }
  list.replaceChildren(...rows);
};

const take = () => {
  marks = [...(props.value?.marks || [])];
  notice(line, props.value?.message ? "error" : "info", props.value?.message || "");
  draw();
};

watch("value", take);
take();
