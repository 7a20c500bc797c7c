// The result grid. `props.value` is what app/pages/search_page.py calls a board: one answer and the user's tally.
const WEAK_ID = "up-weak-line";
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const [head, line, list, foot, bar, tally, actions, live] =
  ["head", "line", "list", "foot", "bar", "tally", "actions", "live"].map(part);

let board = {};
let all = []; // in rank order: {candidate, node, buttons, state, token}
let cards = []; // those of them that are shown: near duplicates are folded into the best-ranked of them
let leaders = {}; // the ids of near duplicates, each with that of the card which stands for it
let unfolded = new Set(); // ids of cards whose near duplicates are shown
let current = 0;
let turn = Promise.resolve(); // marks reach the server one after the other, in the order they were made
let inspected = null;

const say = (text) => { live.textContent = text; };
const cardOf = (imageId) => all.find((card) => card.candidate.image_id === imageId);
const unmarked = () => cards.filter((card) => !card.candidate.verdict);
const perRow = () => {
  const top = cards[0]?.node.offsetTop;
  const count = cards.findIndex((card) => card.node.offsetTop !== top);
  return count < 0 ? cards.length : count;
};

// Cards

const name = (candidate) =>
  [`Rank ${candidate.rank}`, `score ${candidate.score.toFixed(3)}`, candidate.camera,
    leaders[candidate.image_id] && `nearly the same as rank ${cardOf(leaders[candidate.image_id]).candidate.rank}`,
    candidate.verdict ? VERDICTS[candidate.verdict].label : "not marked"].filter(Boolean).join(", ");

const verdictButtons = (act) =>
  Object.entries(VERDICTS).map(([verdict, { label, icon: sign, key, long }]) =>
    button(sign, label, () => act(verdict), {
      class: "up-button up-verdict", "data-verdict": verdict, title: `${label} (${key}): ${long}`, "aria-pressed": "false",
    }));

const press = (buttons, verdict) =>
  buttons.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.verdict === verdict)));

const makeCard = (card) => {
  const { candidate } = card;
  card.token = 0;
  card.state = el("span", { class: "up-state" });
  card.buttons = verdictButtons((verdict) => { select(card); decide(card, verdict); });
  const photo = el(
    "button",
    { type: "button", class: "up-photo", "aria-label": `Enlarge rank ${candidate.rank}`, onclick: () => { select(card); inspect(card); } },
    el("img", { src: pictureUrl(candidate.image_id, "thumb"), alt: "", width: 128, height: 384, loading: "lazy", decoding: "async" }),
    card.state,
    el("span", { class: "up-zoom" }, icon("zoom")),
  );
  photo.querySelector("img").addEventListener("error", () => photo.classList.add("up-no-picture"));
  card.photo = photo;
  card.fold = button("stack", "", () => { select(card); toggleFold(card); }, { class: "up-button up-fold", hidden: true });
  const leader = leaders[candidate.image_id];
  card.node = el(
    "article",
    { class: leader ? "up-card up-duplicate" : "up-card", "data-image": candidate.image_id, onfocusin: () => select(card, false) },
    photo,
    el(
      "div",
      { class: "up-side" },
      el("p", { class: "up-rank" }, el("span", { class: "up-hash" }, "#"), String(candidate.rank)),
      el("dl", { class: "up-facts" },
        el("div", {}, el("dt", {}, "score"), el("dd", {}, candidate.score.toFixed(3))),
        candidate.camera
          ? el("div", {}, el("dt", { class: "up-hidden" }, "camera"), el("dd", { title: candidate.camera }, candidate.camera))
          : null,
        leader
          ? el("div", {}, el("dt", {}, "nearly"), el("dd", {}, `#${cardOf(leader).candidate.rank}`))
          : null),
      card.fold,
      el("div", { class: "up-verdicts", role: "group", "aria-label": `Verdict on rank ${candidate.rank}` }, ...card.buttons),
    ),
  );
  paint(card);
};

const paint = (card) => {
  const { verdict } = card.candidate;
  card.node.dataset.verdict = verdict || "";
  card.node.setAttribute("aria-label", name(card.candidate));
  press(card.buttons, verdict);
  card.state.replaceChildren(...(verdict ? [icon(VERDICTS[verdict].icon), el("span", {}, VERDICTS[verdict].label)] : []));
  if (inspected === card) fillDialog();
};

const tabStops = () =>
  cards.forEach((card, index) => {
    const stop = index === current ? 0 : -1; // one card at a time in the tab order: arrows move between them
    card.node.tabIndex = stop;
    [card.photo, card.fold, ...card.buttons].forEach((one) => { one.tabIndex = stop; });
    card.node.classList.toggle("up-current", index === current);
  });

const select = (card, focus = false) => {
  current = Math.max(0, cards.indexOf(card));
  tabStops();
  if (focus && card) {
    card.node.focus({ preventScroll: true });
    card.node.scrollIntoView({ block: "nearest" });
  }
};

const step = (by) => cards.length && select(cards[Math.min(cards.length - 1, Math.max(0, current + by))], true);

const next = () => {
  const order = [...cards.slice(current + 1), ...cards.slice(0, current)];
  const found = order.find((card) => !card.candidate.verdict);
  if (found) select(found, true);
  else if (cards.length) foot.querySelector("button")?.focus();
};

const skip = () => {
  const order = [...cards.slice(current + 1), ...cards.slice(0, current + 1)];
  const found = order.find((card) => !card.candidate.verdict) || cards[current];
  if (found) select(found, true);
};

// Marks

const counts = () => {
  const open = unmarked().length;
  rest.querySelector("span").replaceChildren(
    el("span", { class: "up-long" }, "Mark the "), el("span", { class: "up-short" }, `rest as misses (${open})`));
  rest.disabled = open === 0;
  rest.hidden = board.understood === false; // such results say nothing, so neither would such marks
  align.hidden = !all.some((card) => ["hit", "miss"].includes(card.candidate.verdict));
  plain.hidden = !board.aligned;
};

const showTally = (value) => {
  if (!value) return;
  board.tally = value;
  const items = [["hit", value.hits, "hit"], ["miss", value.misses, "miss"], ["wrong_person", value.wrong_person, "wrong person"]];
  const totals = items.map(([verdict, count, word]) =>
    el("span", { class: "up-count", "data-verdict": verdict, title: `${VERDICTS[verdict].label}: ${count}` },
      icon(VERDICTS[verdict].icon), el("b", {}, count.toLocaleString("en")),
      el("span", { class: "up-count-word" }, word === "wrong person" ? word : count === 1 ? word : word === "hit" ? "hits" : "misses")));
  tally.replaceChildren(el("span", { class: "up-counts", role: "group", "aria-label": "My marks" }, ...totals), el("span", { class: "up-until" }, value.until));
};

const answer = (reply) => {
  showTally(reply.tally);
  const newer = reply.serving && board.version && reply.serving !== board.version;
  if (newer && !board.told) {
    board.told = true;
    notice(line, "info", `A newer version, ${reply.serving}, now serves. These results are from ${board.version}.`,
      button("search", "Search again", () => trigger("again", { asked: board.asked, address: "" })));
  }
};

const came = ({ detail }) => {
  if (!element.isConnected) document.removeEventListener("up-added", came);
  else if (board.state === "results") {
    notice(line, "info", `Pictures were added: ${detail.toLocaleString("en")}. These results are from before.`,
      button("search", "Search again", () => trigger("again", { asked: board.asked, address: "" })));
  }
};
document.addEventListener("up-added", came);

// One request after the other; `back` puts the cards as they were when the server refuses.
const send = (request, back) => {
  turn = turn.then(request).then(answer, (error) => { back(); notice(line, "error", error.message); });
  return turn;
};

const set = (some, verdict) => {
  const before = some.map((card) => [card, card.candidate.verdict, ++card.token]);
  some.forEach((card) => { card.candidate.verdict = verdict; paint(card); });
  counts();
  return () => {
    before.forEach(([card, old, token]) => { if (card.token === token) { card.candidate.verdict = old; paint(card); } });
    counts();
    if (before[0]) select(before[0][0], true);
  };
};

const told = () => notice(line, board.state === "error" ? "error" : "info", board.message || "");

// Press a verdict again to take it back.
const decide = (card, verdict) => {
  if (!card) return;
  const value = card.candidate.verdict === verdict ? null : verdict;
  const query = board.query_id;
  const back = set([card], value);
  told(); // what there is to say of the search stays, so that no card moves under the pointer
  say(value ? `Rank ${card.candidate.rank}: ${VERDICTS[value].label}` : `Rank ${card.candidate.rank}: mark taken back`);
  if (value && !inspected) next();
  send(() => ask("mark", { query_id: query, image_id: card.candidate.image_id, verdict: value }), back);
};

const markRest = () => {
  const some = unmarked();
  if (!some.length) return;
  const query = board.query_id;
  const back = set(some, "miss");
  const left = folded().filter((card) => !card.candidate.verdict).length; // nothing is marked that nobody sees
  const text = `Marked ${plural(some.length, "picture")} as misses.${left ? ` ${plural(left, "folded near duplicate")} left as ${left === 1 ? "it was" : "they were"}.` : ""}`;
  say(text);
  send(async () => {
    const reply = await ask("mark_rest", { query_id: query, image_ids: some.map((card) => card.candidate.image_id) });
    notice(line, "info", text, button("undo", "Undo", undo));
    return reply;
  }, back);
};

const undo = () => {
  const tokens = new Map(all.map((card) => [card, card.token]));
  send(async () => {
    const reply = await ask("undo", { query_id: board.query_id || null });
    const touched = all.filter((card) => // what was marked while the answer was on its way is newer than it
      tokens.get(card) === card.token && (card.candidate.verdict || null) !== (reply.verdicts[card.candidate.image_id] || null));
    touched.forEach((card) => { card.token += 1; card.candidate.verdict = reply.verdicts[card.candidate.image_id] || null; paint(card); });
    counts();
    const text = reply.undone === 0
      ? "There is nothing left to undo."
      : touched.length === 0
        ? `Undid ${plural(reply.undone, "mark")} of another search.`
        : `Undid ${plural(reply.undone, "mark")}.`;
    notice(line, "info", text);
    say(text);
    const seen = touched.find((card) => cards.includes(card));
    if (seen && !inspected) select(seen, true);
    return reply;
  }, () => {});
};

const more = async () => {
  const asked = board.query_id;
  const down = foot.querySelector("button");
  if (!down || down.disabled) return;
  down.disabled = true;
  try {
    const reply = await ask("more", { query_id: asked });
    if (asked !== board.query_id) return;
    const first = cards.length;
    const came = reply.candidates.filter((candidate) => !cardOf(candidate.image_id)); // a re-ranking may have brought some
    board.candidates.push(...came);
    addCards(came, reply.duplicates);
    const fresh = cards.find((card) => came.includes(card.candidate)) || cards[first];
    if (fresh) select(fresh, true);
    say(`${plural(came.length, "more result")}`);
  } catch (error) {
    notice(line, "error", error.message);
  }
  drawFoot();
};

// Re-ranking by the marks of this search: cards are kept, so that nothing flickers and no mark on its way is lost.

const realign = (aligned) => {
  const query = board.query_id;
  send(async () => {
    const reply = await ask("rerank", { query_id: query, aligned });
    if (query !== board.query_id) return {};
    const before = new Map(all.map((card) => [card.candidate.image_id, card]));
    board.aligned = aligned;
    all = [];
    put(reply.candidates.map((candidate) => before.get(candidate.image_id) || { candidate }), reply.duplicates);
    if (!inspected) cards[current]?.node.scrollIntoView({ block: "nearest" });
    const text = aligned ? "Unmarked results are re-ordered by your marks. Marked ones kept their places." : "Results are in the order of the search again.";
    notice(line, "info", text);
    say(text);
    drawFoot();
    return {};
  }, () => {});
};

const align = button("up", "Re-rank by my marks", () => realign(true), {
  class: "up-button up-folds", "data-act": "align", hidden: true, title: "Re-order the unmarked results by the hits and misses of this search; the model stays as it is",
});
const plain = button("back", "Order of the search", () => realign(false), { class: "up-button up-folds", "data-act": "plain", hidden: true });

// The bar

const rest = button("rest", "Mark the rest as misses", () => markRest(), { title: "Every result shown and not marked becomes a miss", "data-act": "rest" });
actions.append(
  button("undo", "Undo", () => undo(), { title: "Undo my last action (Backspace)", "data-act": "undo" }),
  button("skip", "Skip", () => skip(), { title: "Go to the next unmarked result (Space)", "data-act": "skip" }),
  rest,
  button("help", "Keys", () => help.showModal(), { title: "Keys (?)", "data-act": "help" }),
);

// Drawing

const put = (some, duplicates) => {
  all.push(...some); // before they are made: a duplicate names the rank of what stands for it
  leaders = Object.fromEntries(Object.entries(duplicates).filter(([, leader]) => cardOf(leader)));
  some.filter((card) => !card.node).forEach(makeCard);
  arrange();
};

const addCards = (candidates, duplicates) => put(candidates.map((candidate) => ({ candidate })), duplicates);

const drawFoot = () => {
  const left = (board.total || 0) - all.length;
  if (left > 0) {
    foot.replaceChildren(button("more", `Show ${Math.min(left, board.page)} more`, more), el("span", { class: "up-fine" }, `${all.length} of ${plural(board.total, "picture")}`));
  } else foot.replaceChildren(el("span", { class: "up-fine" }, all.length ? `That is all: ${plural(all.length, "picture")}.` : ""));
};

const empty = (sign, title, ...lines) =>
  el("div", { class: "up-empty" }, icon(sign), el("h2", {}, title), ...lines.map((text) => el("p", {}, text)));

const steps = () =>
  el("ol", { class: "up-steps" }, ...[
    ["search", "Describe", "Say what a person looks like, in a sentence or two."],
    ["check", "Mark", "Say of each result whether it is a hit or a miss."],
    ["learn", "Learn", "From time to time your marks train a better version."],
  ].map(([sign, title, text]) => el("li", {}, icon(sign), el("h2", {}, title), el("p", {}, text))));

// What was asked beside the words.
const drawHead = () => {
  if (board.state !== "results") { head.replaceChildren(); return; }
  const { without, like, image_weight: weight, picture } = board.asked;
  const told = [
    board.caption && (like || picture) ? `with a picture (weight ${Math.round(100 * weight)} %)` : null,
    without ? `without “${without}”` : null,
    board.filtered ? `within ${plural(board.filtered, "filter")}` : null,
  ].filter(Boolean);
  head.replaceChildren(...[
    like ? el("img", { class: "up-asked", src: pictureUrl(like, "thumb"), alt: "The picture searched by" }) : null,
    el("h2", { class: "up-query" }, board.caption ? `“${board.caption}”` : like ? "Pictures like this one" : "By a picture"),
    told.length ? el("p", { class: "up-told" }, told.join(" · ")) : null,
    el("p", { class: "up-fine" }, `${plural(board.total, "picture")} ranked by ${board.version}`),
    folds,
    align,
    plain,
    board.learns ? null : el("p", { class: "up-fine up-no-lesson" }, "Marks on a search by a picture or with “without” are kept and exported, but not trained on."),
  ].filter(Boolean));
};

const focusResults = () => {
  // Only when the person waits for them: whoever types on, or went elsewhere, is left alone.
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
  board = came;
  if (large.open) large.close();
  [all, cards, leaders, unfolded, current] = [[], [], {}, new Set(), 0];
  list.replaceChildren();
  element.dataset.state = board.state || "start";
  element.removeAttribute("aria-busy");
  drawHead();
  told();
  bar.hidden = board.state !== "results";
  showTally(board.tally);
  if (board.state === "results" && board.candidates.length) {
    addCards(board.candidates, board.duplicates);
    say(`${plural(board.candidates.length, "result")} for ${board.caption || "a picture"}`);
  } else if (board.state === "results") {
    list.append(board.filtered
      ? empty("filter", "No picture passes these filters", "Remove one of them, then search again.")
      : empty("search", "No pictures to rank", "The gallery is empty. Add pictures, or index a folder with “python app.py index FOLDER”, then search again."));
    notice(line, "info", "");
  } else {
    list.append(steps());
  }
  counts();
  drawFoot();
  if (board.state !== "error") remember();
  if (!first && board.state === "results") focusResults();
};

// The address repeats the search: reload, share, back and forward.

const ours = (name) => board.names.includes(name) || name.startsWith("meta.");

const remember = () => {
  if (!board.names) return;
  const url = new URL(window.location.href);
  const before = [...url.searchParams].filter(([name]) => ours(name)).sort().join("\n");
  const wanted = board.address.map((pair) => [...pair]);
  if (before === [...wanted].sort().join("\n")) return;
  [...url.searchParams.keys()].filter(ours).forEach((name) => url.searchParams.delete(name));
  wanted.forEach(([name, value]) => url.searchParams.append(name, value));
  window.history.pushState({}, "", url);
};

onPage(window, "popstate", () => trigger("again", { asked: null, address: window.location.search }));
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
  if (card) { card.candidate.verdict = event.detail.verdict; paint(card); counts(); }
  showTally(event.detail.tally);
});
