// Over all marked descriptions: which hits rose and fell from one version to the other, the biggest moves first.
const moveRow = (move) => el("li", {}, el("a", { class: "up-move", href: addressOf(move.caption),
  onclick: (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab, as the browser does it
    event.preventDefault();
    go(move.caption);
    form.scrollIntoView({ block: "start" });
    words.focus();
  } },
el("img", { src: pictureUrl(move.image_id, "thumb"), alt: "", loading: "lazy" }),
el("span", { class: "up-move-text" }, el("b", {}, `${move.rank_a} → ${move.rank_b}`), el("span", { class: "up-hidden" }, ": "), el("span", {}, `“${move.caption}”`))));

const moveList = (title, sign, some, change) => el("section", { class: "up-move-list" },
  el("h3", {}, el("span", { class: "up-badge", "data-change": change }, icon(sign), el("span", {}, title))),
  some.length ? el("ol", {}, ...some.map(moveRow)) : el("p", { class: "up-fine" }, "None."));

const drawMoves = (found) => {
  const whose = found.everybody ? "" : "your ";
  if (!found.hits) {
    movesPart.replaceChildren(el("h2", {}, "Over all marked descriptions"),
      el("p", { class: "up-fine" }, `None of ${found.everybody ? "the" : "your"} marked descriptions has a hit in this gallery yet. Mark hits on the Search page, and this part shows which of them rose and fell.`));
    return;
  }
  const first = found.first_a === found.first_b ? `A hit comes first for ${found.first_a} of them under both.`
    : `A hit comes first for ${found.first_b} of them under ${found.version_b}, for ${found.first_a} under ${found.version_a}.`;
  movesPart.replaceChildren(
    el("h2", {}, `Over all ${whose}marked descriptions`),
    el("p", {}, `Of ${plural(found.hits, "hit")} for ${plural(found.captions, "description")}, ${found.rose} rose, ${found.fell} fell and ${found.hits - found.rose - found.fell} stayed. ${first}`),
    el("p", { class: "up-fine" }, "Hits that a version has learnt from rise by themselves; what is new to it counts. ", found.note),
    el("div", { class: "up-two" }, moveList(`Rose: ${found.rose}`, "up", found.up, "up"), moveList(`Fell: ${found.fell}`, "more", found.down, "down")));
};

// The versions to choose from: the one in use and the one it came from, where the address names none.
const take = () => {
  versions = props.value?.versions || [];
  if (!versions.length) return;
  const wanted = fromAddress();
  const newest = versions[0];
  const used = versions.find((one) => one.in_use) || newest;
  const b = wanted.b || (newest.id !== used.id ? newest.id : used.id);
  const parent = versions.find((one) => one.id === b)?.parent;
  const a = wanted.a || (b !== used.id ? used.id : parent || versions.find((one) => one.id !== b)?.id || "");
  for (const select of [selectA, selectB]) {
    select.replaceChildren(...versions.map((one) => el("option", { value: one.id }, one.in_use ? `${one.id} (in use)` : one.id)));
  }
  form.hidden = versions.length < 2;
  if (versions.length < 2) {
    sides.replaceChildren(el("div", { class: "up-empty" }, icon("learn"), el("h2", {}, "There is one version so far"), el("p", {}, "As soon as marks or the gallery's style have trained a second one, this page shows what it changed. The Learning page says when that will be.")));
    return;
  }
  [selectA.value, selectB.value] = [a, b];
  if (!shown(element) || new URLSearchParams(window.location.search).get("tab") !== "compare") return;
  if (a !== asked.a || b !== asked.b || wanted.q !== asked.q || !movesPart.childElementCount) show({ a, b, q: wanted.q });
};

onPage(window, "popstate", () => { if (shown(element)) take(); });
watch("value", take);
take();
