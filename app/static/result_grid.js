// The result grid. `props.value` is what app/pages/search.py calls a board: one answer and the user's tally.
const WEAK_ID = "up-weak-line";
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const [head, line, list, foot, bar, tally, actions, live] =
  ["head", "line", "list", "foot", "bar", "tally", "actions", "live"].map(part);

let board = {};
let cards = []; // in rank order: {candidate, node, buttons, state, token}
let current = 0;
let turn = Promise.resolve(); // marks reach the server one after the other, in the order they were made
let inspected = null;

const say = (text) => { live.textContent = text; };
const cardOf = (imageId) => cards.find((card) => card.candidate.image_id === imageId);
const unmarked = () => cards.filter((card) => !card.candidate.verdict);
const perRow = () => {
  const top = cards[0]?.node.offsetTop;
  const count = cards.findIndex((card) => card.node.offsetTop !== top);
  return count < 0 ? cards.length : count;
};

// Cards

const name = (candidate) =>
  [`Rank ${candidate.rank}`, `score ${candidate.score.toFixed(3)}`, candidate.camera,
    candidate.verdict ? VERDICTS[candidate.verdict].label : "not marked"].filter(Boolean).join(", ");

const verdictButtons = (act) =>
  Object.entries(VERDICTS).map(([verdict, { label, icon: sign, key, long }]) =>
    button(sign, label, () => act(verdict), {
      class: "up-button up-verdict", "data-verdict": verdict, title: `${label} (${key}): ${long}`, "aria-pressed": "false",
    }));

const press = (buttons, verdict) =>
  buttons.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.verdict === verdict)));

const makeCard = (candidate) => {
  const card = { candidate, token: 0 };
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
  card.node = el(
    "article",
    { class: "up-card", "data-image": candidate.image_id, onfocusin: () => select(card, false) },
    photo,
    el(
      "div",
      { class: "up-side" },
      el("p", { class: "up-rank" }, el("span", { class: "up-hash" }, "#"), String(candidate.rank)),
      el("dl", { class: "up-facts" },
        el("div", {}, el("dt", {}, "score"), el("dd", {}, candidate.score.toFixed(3))),
        candidate.camera
          ? el("div", {}, el("dt", { class: "up-hidden" }, "camera"), el("dd", { title: candidate.camera }, candidate.camera))
          : null),
      el("div", { class: "up-verdicts", role: "group", "aria-label": `Verdict on rank ${candidate.rank}` }, ...card.buttons),
    ),
  );
  paint(card);
  return card;
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
    [card.photo, ...card.buttons].forEach((one) => { one.tabIndex = stop; });
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
      button("search", "Search again", () => trigger("again", { caption: board.caption })));
  }
};

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

// Press a verdict again to take it back.
const decide = (card, verdict) => {
  if (!card) return;
  const value = card.candidate.verdict === verdict ? null : verdict;
  const query = board.query_id;
  const back = set([card], value);
  notice(line, "info", "");
  say(value ? `Rank ${card.candidate.rank}: ${VERDICTS[value].label}` : `Rank ${card.candidate.rank}: mark taken back`);
  if (value && !inspected) next();
  send(() => ask("mark", { query_id: query, image_id: card.candidate.image_id, verdict: value }), back);
};

const markRest = () => {
  const some = unmarked();
  if (!some.length) return;
  const query = board.query_id;
  const back = set(some, "miss");
  const text = `Marked ${plural(some.length, "picture")} as misses.`;
  say(text);
  send(async () => {
    const reply = await ask("mark_rest", { query_id: query, image_ids: some.map((card) => card.candidate.image_id) });
    notice(line, "info", text, button("undo", "Undo", undo));
    return reply;
  }, back);
};

const undo = () => {
  const tokens = new Map(cards.map((card) => [card, card.token]));
  send(async () => {
    const reply = await ask("undo", { query_id: board.query_id || null });
    const touched = cards.filter((card) => // what was marked while the answer was on its way is newer than it
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
    if (touched[0] && !inspected) select(touched[0], true);
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
    board.candidates.push(...reply.candidates);
    addCards(reply.candidates);
    if (cards[first]) select(cards[first], true);
    say(`${plural(reply.candidates.length, "more result")}`);
  } catch (error) {
    notice(line, "error", error.message);
  }
  drawFoot();
};

// Enlarged picture

const large = dialog("Picture");
large.classList.add("up-inspect");
const largeBody = el("div", { class: "up-inspect-body" });
large.append(largeBody);
large.addEventListener("close", () => {
  const card = inspected;
  inspected = null;
  if (card) select(card, true);
});

const fillDialog = () => {
  const { candidate } = inspected;
  large.querySelector("h2").textContent = `Rank ${candidate.rank}`;
  const facts = [
    ["Score", candidate.score.toFixed(4)], ["Camera", candidate.camera], ["Person", candidate.pid],
    ["Taken", candidate.captured_at ? when(candidate.captured_at) : null],
    ["My mark", candidate.verdict ? VERDICTS[candidate.verdict].label : "none"],
    ["Version", board.version], ["Picture id", candidate.image_id],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  const buttons = verdictButtons((verdict) => decide(inspected, verdict));
  press(buttons, candidate.verdict);
  const index = cards.indexOf(inspected);
  const kept = document.activeElement?.dataset?.act || document.activeElement?.dataset?.verdict;
  const go = (act, by, sign, label) =>
    button(sign, label, () => show(cards[index + by]), { "data-act": act, disabled: !cards[index + by] });
  largeBody.replaceChildren(
    el("img", { class: "up-large", src: pictureUrl(candidate.image_id, "full"), alt: `Person ranked ${candidate.rank}` }),
    el("div", { class: "up-inspect-side" },
      el("p", { class: "up-inspect-caption" }, `“${board.caption}”`),
      el("dl", { class: "up-facts up-facts-long" }, ...facts.map(([term, value]) =>
        el("div", {}, el("dt", {}, term), el("dd", { class: term === "Picture id" ? "up-id" : null }, String(value))))),
      el("div", { class: "up-verdicts", role: "group", "aria-label": "Verdict" }, ...buttons),
      el("div", { class: "up-turn" }, go("previous", -1, "left", "Previous"), go("next", 1, "right", "Next"))));
  if (kept) largeBody.querySelector(`[data-act="${kept}"]:not([disabled]), [data-verdict="${kept}"]`)?.focus();
};

const show = (card) => {
  if (!card) return;
  inspected = card;
  fillDialog();
};

const inspect = (card) => {
  if (!card) return;
  show(card);
  if (!large.open) large.showModal();
};

// The bar

const rest = button("rest", "Mark the rest as misses", () => markRest(), { title: "Every result shown and not marked becomes a miss", "data-act": "rest" });
actions.append(
  button("undo", "Undo", () => undo(), { title: "Undo my last action (Backspace)", "data-act": "undo" }),
  button("skip", "Skip", () => skip(), { title: "Go to the next unmarked result (Space)", "data-act": "skip" }),
  rest,
  button("help", "Keys", () => help.showModal(), { title: "Keys (?)", "data-act": "help" }),
);

// Help

const KEYS = [
  ["A", "Hit: fits the words, and is the person"], ["X", "Miss: does not fit the words"],
  ["W", "Wrong person: fits the words, but is somebody else"], ["Space", "Skip to the next unmarked result"],
  ["Backspace Ctrl+Z", "Undo my last action"], ["← ↑ → ↓", "Move between results"], ["Enter", "Enlarge the result"],
  ["/", "Go to the description"], ["?", "This help"], ["Esc", "Close what is open"],
];
const help = dialog(
  "Keys",
  el("p", {}, "They act on the result with the frame and rest while you type. Press a verdict again to take it back."),
  el("dl", { class: "up-keys" }, ...KEYS.map(([key, text]) =>
    el("div", {}, el("dt", {}, ...key.split(" ").map((one) => el("kbd", {}, one))), el("dd", {}, text)))),
);

const act = {
  a: () => decide(inspected || cards[current], "hit"),
  x: () => decide(inspected || cards[current], "miss"),
  w: () => decide(inspected || cards[current], "wrong_person"),
  " ": skip,
  Backspace: undo,
  ArrowLeft: () => (inspected ? show(cards[cards.indexOf(inspected) - 1]) : step(-1)),
  ArrowRight: () => (inspected ? show(cards[cards.indexOf(inspected) + 1]) : step(1)),
  ArrowUp: () => step(-perRow()),
  ArrowDown: () => step(perRow()),
  Enter: () => inspect(cards[current]),
};
const IN_DIALOG = ["a", "x", "w", "Backspace", "ArrowLeft", "ArrowRight"];

onPage(document, "keydown", (event) => {
  const undoes = (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey && event.key.toLowerCase() === "z";
  if (undoes && !event.defaultPrevented && !event.repeat && shown(element) && !typing(event.target) && !help.open) {
    event.preventDefault(); // else the browser would undo typing, and move the focus into the description
    undo();
    return;
  }
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (!shown(element) || typing(event.target) || help.open) return;
  const inside = event.target === document.body || element.contains(event.target);
  if (!inside && !["?", "/"].includes(event.key)) return; // another control has the focus: its keys are its own
  if (event.key === "?") { event.preventDefault(); help.showModal(); return; }
  if (event.key === "/") {
    const box = document.querySelector("#up-caption textarea");
    if (box && !inspected) { event.preventDefault(); box.focus(); box.select(); }
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!Object.hasOwn(act, key) || (inspected && !IN_DIALOG.includes(key))) return;
  if ([" ", "Enter"].includes(key) && event.target.closest?.("button, a, summary")) return; // presses that button
  if (!cards.length && key !== "Backspace") return;
  if (event.repeat && !key.startsWith("Arrow")) { event.preventDefault(); return; }
  event.preventDefault();
  act[key]();
});

// Drawing

const addCards = (candidates) => {
  for (const candidate of candidates) {
    if (candidate.score < board.weak_below && cards.length && !document.getElementById(WEAK_ID)) {
      list.append(el("p", { class: "up-weak", id: WEAK_ID }, el("span", {}, `Weak matches below: more than ${board.weak_gap.toFixed(2)} under the best score`)));
    }
    const card = makeCard(candidate);
    cards.push(card);
    list.append(card.node);
  }
  tabStops();
  counts();
};

const drawFoot = () => {
  const left = (board.total || 0) - cards.length;
  if (left > 0) {
    foot.replaceChildren(button("more", `Show ${Math.min(left, board.page)} more`, more), el("span", { class: "up-fine" }, `${cards.length} of ${plural(board.total, "picture")}`));
  } else foot.replaceChildren(el("span", { class: "up-fine" }, cards.length ? `That is all: ${plural(cards.length, "picture")}.` : ""));
};

const empty = (sign, title, ...lines) =>
  el("div", { class: "up-empty" }, icon(sign), el("h2", {}, title), ...lines.map((text) => el("p", {}, text)));

const steps = () =>
  el("ol", { class: "up-steps" }, ...[
    ["search", "Describe", "Say what a person looks like, in a sentence or two."],
    ["check", "Mark", "Say of each result whether it is a hit or a miss."],
    ["learn", "Learn", "From time to time your marks train a better version."],
  ].map(([sign, title, text]) => el("li", {}, icon(sign), el("h2", {}, title), el("p", {}, text))));

const drawHead = () => {
  if (board.state !== "results") { head.replaceChildren(); return; }
  head.replaceChildren(
    el("h2", { class: "up-query" }, `“${board.caption}”`),
    el("p", { class: "up-fine" }, `${plural(board.total, "picture")} ranked by ${board.version}`));
};

const focusResults = () => {
  // Only when the person waits for them: whoever types on, or went elsewhere, is left alone.
  const active = document.activeElement;
  const box = document.querySelector("#up-caption textarea");
  const waiting = active === document.body || active === box || active?.closest?.("#up-search, .up-examples");
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
  cards = [];
  current = 0;
  list.replaceChildren();
  element.dataset.state = board.state || "start";
  element.removeAttribute("aria-busy");
  drawHead();
  notice(line, "info", "");
  if (board.message) notice(line, board.state === "error" ? "error" : "info", board.message);
  bar.hidden = board.state !== "results" && !(board.tally && board.tally.total);
  showTally(board.tally);
  if (board.state === "results" && board.candidates.length) {
    addCards(board.candidates);
    say(`${plural(board.candidates.length, "result")} for ${board.caption}`);
  } else if (board.state === "results") {
    list.append(empty("search", "No pictures to rank", "The gallery is empty. Index a folder of pictures with “python app.py index FOLDER”, then search again."));
  } else {
    list.append(steps());
  }
  counts();
  drawFoot();
  if (board.state !== "error") remember(first);
  if (!first && board.state === "results") focusResults();
};

// The address repeats the search: reload, share, back and forward.

const remember = () => {
  const url = new URL(window.location.href);
  const before = url.searchParams.get("q") || "";
  if (before === (board.caption || "")) return;
  if (board.state === "results") url.searchParams.set("q", board.caption);
  else if (board.state === "start" && board.cleared) url.searchParams.delete("q");
  else return;
  window.history.pushState({}, "", url);
};

onPage(window, "popstate", () => trigger("again", { caption: new URL(window.location.href).searchParams.get("q") || "" }));
onPage(document, "up:searching", () => {
  element.setAttribute("aria-busy", "true");
  notice(line, "info", "");
  say("Searching");
});
onPage(document, "up:searched", () => element.removeAttribute("aria-busy"));
onPage(document, "up:mark-changed", (event) => {
  const card = event.detail.caption === board.caption && cardOf(event.detail.image_id);
  if (card) { card.candidate.verdict = event.detail.verdict; paint(card); counts(); }
  showTally(event.detail.tally);
});

watch("value", () => draw());
draw(true);
