// My marks, newest first. `props.value` is what app/pages/marks_page.py calls a list of marks.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const [chips, line, list, live] = ["chips", "line", "list", "live"].map(part);
const PAGE = 60;

let marks = [];
let chosen = "all";
let room = PAGE;

const chosenMarks = () => marks.filter((mark) => chosen === "all" || mark.verdict === chosen);

const takeBack = (mark, row) => {
  const follower = row.nextElementSibling || row.previousElementSibling;
  row.querySelector("button").disabled = true;
  queue.add(() => ask("take_back", { query_id: mark.query_id, image_id: mark.image_id }), (reply) => {
    marks = marks.filter((one) => one !== mark);
    document.dispatchEvent(new CustomEvent("up:mark-changed", {
      detail: { image_id: mark.image_id, query_id: mark.query_id, caption: mark.caption, by_picture: mark.by_picture, verdict: null, tally: reply.tally },
    }));
    notice(line, "info", "");
    live.textContent = "Mark taken back";
    draw();
    const again = follower && list.querySelector(`[data-key="${follower.dataset.key}"] button`);
    (again || chips.querySelector("button"))?.focus();
  }, (error) => {
    row.querySelector("button").disabled = false;
    notice(line, "error", error.message);
  });
};

// The same keys as on every page take back the mark whose row has the focus.
onPage(element, "keydown", (event) => {
  const row = ["Backspace", "u", "U"].includes(event.key) && !event.ctrlKey && !event.metaKey && !event.altKey && event.target.closest(".up-mark");
  const mark = row && marks.find((one) => row.dataset.key === keyOf(one));
  if (!mark || event.repeat || row.querySelector("button").disabled) return;
  event.preventDefault();
  takeBack(mark, row);
});
const keyOf = (mark) => `${mark.query_id}-${mark.image_id}`;

const makeRow = (mark, index) => {
  const { label, icon: sign } = VERDICTS[mark.verdict];
  const row = el("li", { class: "up-mark", "data-verdict": mark.verdict, "data-key": keyOf(mark) },
    el("img", { src: pictureUrl(mark.image_id, "thumb"), alt: `Person marked ${label.toLowerCase()}`, width: 128, height: 384, loading: "lazy" }),
    el("div", { class: "up-mark-text" },
      el("p", { class: "up-badge", "data-verdict": mark.verdict }, icon(sign), el("span", {}, label)),
      el("p", { class: "up-mark-caption" }, mark.by_picture
        ? [mark.caption ? `“${mark.caption}”` : "", "by a picture"].filter(Boolean).join(" ")
        : el("a", { href: `?q=${encodeURIComponent(mark.caption)}`, title: "Search for this again" }, `“${mark.caption}”`)),
      el("p", { class: "up-fine" }, `${when(mark.marked_at)} · rank ${mark.rank} · score ${mark.score.toFixed(3)} · ${mark.version}`)));
  row.append(button("undo", "Take back", () => takeBack(mark, row), { title: "Take back (Backspace)", "aria-label": `Take back mark ${index + 1}: ${label}, ${mark.caption || "by a picture"}` }));
  return row;
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
  const rows = some.slice(0, room).map(makeRow);
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
