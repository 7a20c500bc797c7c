// What the grid shows: an answer, pictures of the gallery, or why there is nothing; and the address that repeats it.
const putCards = (some, duplicates) => {
  all.push(...some); // before they are drawn: a duplicate names the rank of what represents it
  byId = new Map(all.map((card) => [card.candidate.image_id, card]));
  leaders = Object.fromEntries(Object.entries(duplicates || {}).filter(([, leader]) => cardOf(leader)));
  arrange();
};
const addCards = (candidates, duplicates) => putCards(candidates.map(newCard), duplicates);

const more = async (count) => {
  const asked = board.query_id;
  const buttons = [...foot.querySelectorAll("button")];
  if (!buttons.length || buttons[0].disabled) return;
  buttons.forEach((one) => { one.disabled = true; });
  try {
    const reply = board.browse ? await ask("browse", { filters: board.filters, offset: all.length }) : await ask("more", { query_id: asked, count });
    if (asked !== board.query_id) return;
    const came = reply.candidates.filter((candidate) => !cardOf(candidate.image_id)); // a re-ranking may have brought some
    addCards(came, reply.duplicates);
    const fresh = came.length && cards.find((card) => card.candidate === came[0]);
    if (fresh) select(fresh, true);
    say(`${plural(came.length, "more result")}`);
  } catch (error) {
    toast("error", error.message);
  }
  drawFoot();
};

const MANY = 200;
const drawFoot = () => {
  const left = (board.total || 0) - all.length;
  const nodes = [];
  if (left > 0) nodes.push(button("more", `Show ${Math.min(left, board.page)} more`, () => more(board.page)));
  if (left > board.page && !board.browse) nodes.push(button("more", `Show ${Math.min(left, MANY)} more`, () => more(MANY), { "data-act": "many" }));
  foot.replaceChildren(el("div", { class: "up-foot-acts" }, ...nodes), el("span", { class: "up-fine" },
    left > 0 ? `${all.length.toLocaleString("en")} of ${plural(board.total, "picture")}` : all.length ? `That is all: ${plural(all.length, "picture")}.` : ""));
};

const empty = (sign, title, ...lines) =>
  el("div", { class: "up-empty" }, icon(sign), el("h2", {}, title), ...lines.map((text) => el("p", {}, text)));

/** @type {[string, string, string, string[]][]} */
const STEPS = [
  ["search", "Describe", "Say what a person looks like: clothes, colours, hair, bags. Or start from a picture below.", ["{ask}", "Enter"]],
  ["check", "Mark", "Say of each result whether it is a hit, a miss or the wrong person.", ["{hit}", "{miss}", "{wrong_person}"]],
  ["learn", "Learn", "From time to time your marks train a better version. The Learning page shows it.", []],
];

const steps = () =>
  el("ol", { class: "up-steps" }, ...STEPS.map(([sign, title, text, keys]) => el("li", {}, icon(sign), el("div", {}, el("h2", {}, title, ...keys.map((key) => keyed(el("kbd"), key, "text"))), el("p", {}, text)))));

// What was asked beside the words.
const drawHead = () => {
  if (board.browse) {
    head.replaceChildren(el("h2", { class: "up-query-start" }, board.filtered ? "Pictures that pass the filters" : "In this gallery"), el("p", { class: "up-fine" }, plural(board.total, "picture")));
    return;
  }
  if (board.state !== "results") { head.replaceChildren(); return; }
  const { without, like, image_weight: weight, picture } = board.asked;
  const parts = [
    board.caption && (like || picture) ? `with a picture (weight ${Math.round(100 * weight)} %)` : null,
    without ? `without “${without}”` : null,
    board.filtered ? `within ${plural(board.filtered, "filter")}` : null,
  ].filter(Boolean);
  head.replaceChildren(...[
    like ? el("img", { class: "up-asked", src: pictureUrl(like, "thumb"), alt: "The picture searched by" }) : null,
    el("h2", { class: board.caption ? "up-query up-hidden" : "up-query" }, board.caption ? `“${board.caption}”` : like ? "Pictures like this one" : "By a picture"),
    el("p", { class: "up-fine", title: `Ranked by ${board.version}` }, plural(board.total, "picture"), el("span", { class: "up-by" }, ` ranked by ${board.version}`)),
    parts.length ? el("p", { class: "up-conditions" }, parts.join(" · ")) : null,
    folds, align, plain,
  ].filter(Boolean));
};

const showNotes = () => {
  const lesson = board.state === "results" && !board.learns ? "Marks on a search by a picture or with “without” are kept and exported, but not trained on." : "";
  notice(line, board.state === "error" ? "error" : "info", [board.message, lesson].filter(Boolean).join(" "));
  line.classList.toggle("up-no-lesson", Boolean(lesson));
};

const focusResults = () => {
  // Only when the person waits for them: a person who types on, or went elsewhere, is left alone.
  const active = document.activeElement;
  const box = document.querySelector("#up-caption textarea");
  const waiting = active === document.body || active === box || active?.closest?.("#up-search, .up-examples") || active?.id === "up-without";
  if (cards.length && waiting && (active !== box || box.value.trim().replace(/\s+/g, " ") === board.caption)) select(cards[0], true);
};

const draw = (first = false) => {
  const came = structuredClone(props.value || {});
  if (came.state === "start" && !came.cleared && ["results", "error"].includes(board.state)) { // slower than a search
    showTally(came.tally);
    return;
  }
  if (came.state === "empty" && board.state) {
    showTally(came.tally);
    showNotes(); // that a search began has cleared them
    say(came.message);
    toast("info", came.message);
    document.querySelector("#up-caption textarea")?.focus();
    return;
  }
  showBoard(came, first);
};

const showBoard = (came, first = false) => {
  came.may_forget ??= board.may_forget; // filters without a query bring pictures only
  board = came;
  board.browse = board.state === "start" && Array.isArray(board.candidates);
  board.filtered ??= Number(Boolean(board.browse && board.address.length));
  if (large.open) large.close();
  [all, cards, byId, leaders, unfolded, picks, current, weakFrom, anchor, mine] = [[], [], new Map(), {}, new Set(), new Set(), 0, null, null, []];
  list.replaceChildren();
  list.style.height = "";
  welcome.replaceChildren();
  element.dataset.state = board.state || "start";
  const asksAlready = first && !elsewhere() && ["q", "like"].some((name) => new URLSearchParams(window.location.search).has(name));
  document.body.dataset.upBoard = asksAlready ? "results" : element.dataset.state;
  element.removeAttribute("aria-busy");
  drawHead();
  showNotes();
  toast("info", "");
  bar.hidden = !board.candidates?.length;
  bar.toggleAttribute("data-browse", Boolean(board.browse));
  showTally(board.tally);
  const some = board.candidates || [];
  if (some.length) {
    addCards(some, board.duplicates);
    if (!board.browse) say(`${plural(some.length, "result")} for ${board.caption || "a picture"}`);
  } else {
    counts();
    if (board.state === "results" || board.browse) {
      welcome.append(board.filtered
        ? empty("filter", "No picture passes these filters", "Remove one of them, then search again.")
        : empty("search", "No pictures to rank", "The gallery is empty. Add pictures, or index a folder with “python app.py index FOLDER”, then search again."));
      if (board.state === "results") notice(line, "info", "");
    }
  }
  if (board.state !== "results" && !asksAlready) welcome.prepend(steps());
  drawFoot();
  if (board.state !== "error") remember();
  if (!first && board.state === "results") { window.scrollTo({ top: 0, behavior: "instant" }); focusResults(); }
};

// The address repeats the search: reload, share, back and forward.
const ours = (name) => board.names.includes(name) || name.startsWith("meta.");

const elsewhere = () => ["compare", "person"].includes(new URLSearchParams(window.location.search).get("tab")); // where `q` is that page's

const remember = (write = "pushState") => {
  if (!board.names || elsewhere()) return;
  const url = new URL(window.location.href);
  const before = [...url.searchParams].filter(([name]) => ours(name)).sort().join("\n");
  const wanted = board.address.map((pair) => [...pair]);
  if (before === [...wanted].sort().join("\n")) return;
  [...url.searchParams.keys()].filter(ours).forEach((name) => url.searchParams.delete(name));
  wanted.forEach(([name, value]) => url.searchParams.append(name, value));
  window.history[write]({}, "", url);
};

onPage(document, "up:page", () => remember("replaceState"));
onPage(window, "popstate", () => elsewhere() || trigger("again", { asked: null, address: window.location.search }));
let browses = 0;
onPage(document, "up:browse", async (event) => { // filters without a query: the tools know them already, so only this part changes
  const number = browses += 1;
  try {
    const reply = await ask("browse", { filters: event.detail.filters, offset: 0 });
    if (number === browses) showBoard({ state: "start", tally: board.tally, ...reply });
  } catch (error) {
    notice(line, "error", error.message);
  }
});
onPage(document, "up:searching", () => {
  element.setAttribute("aria-busy", "true");
  notice(line, "info", "");
  say("Searching");
});
onPage(document, "up:searched", () => element.removeAttribute("aria-busy"));
onPage(document, "up:mark-changed", (event) => {
  const same = board.asked?.like || board.asked?.picture ? event.detail.query_id === board.query_id
    : !event.detail.by_picture && event.detail.caption === board.caption;
  const card = same && cardOf(event.detail.image_id);
  if (card) { card.stored = event.detail.verdict; put(card, card.stored); counts(); }
  showTally(event.detail.tally);
});
