// What to mark next, one at a time. `props.value` is what app/pages/review_page.py calls a batch.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const [line, stage, contestedPart, live] = ["line", "card", "contested", "live"].map(part);

const REASONS = { conflict: ["alert", "Contradictory marks"], disagreement: ["rest", "Versions disagree"], uncertain: ["help", "Uncertain"] };

let batch = { state: "idle" };
let session = 0; // marks made since the page was opened, less those taken back
let place = 0; // of the suggestion that is asked

const asked = () => batch.suggestions || [];
const open = () => asked().filter((one) => !one.verdict && !one.skipped);

const announceMark = (one, verdict, tally) =>
  document.dispatchEvent(new CustomEvent("up:mark-changed", { detail: { image_id: one.image_id, caption: one.caption, verdict, tally } }));

// Marks are shown at once and sent in order by the queue; where the server refuses one, it is asked again.
const send = (one, verdict, done, refused) => {
  const op = newOp();
  queue.add(() => ask("judge", { op, query_id: one.query_id, image_id: one.image_id, verdict }), (reply) => {
    announceMark(one, verdict, reply.tally);
    done();
  }, (error) => { refused(); notice(line, "error", error.message); });
};

// At the end not its button: a person who skips by Space would press it.
const focusStage = () => stage.querySelector("article, .up-empty")?.focus();

const forward = () => {
  const order = [...asked().slice(place + 1), ...asked().slice(0, place + 1)];
  const next = order.find((one) => !one.verdict && !one.skipped);
  place = next ? asked().indexOf(next) : asked().length;
  drawStage();
  focusStage();
};

const judge = (one, verdict) => {
  notice(line, "info", "");
  one.verdict = verdict;
  session += 1;
  send(one, verdict, () => {}, () => { one.verdict = null; session -= 1; goTo(one); });
  live.textContent = `${VERDICTS[verdict].label}. ${plural(open().length, "suggestion")} left`;
  forward();
};

const rejudge = (one, verdict) => send(one, verdict, () => {
  const count = { hit: "hits", miss: "misses" };
  if (count[one.verdict]) one[count[one.verdict]] -= 1;
  if (count[verdict]) one[count[verdict]] += 1;
  one.verdict = verdict;
  live.textContent = `Your mark is ${VERDICTS[verdict].label} now`;
  const at = batch.contested.indexOf(one);
  drawContested();
  contestedPart.querySelectorAll("li")[at]?.querySelector(`[data-verdict="${verdict}"]`)?.focus();
}, () => {});

const goTo = (one) => {
  if (!asked().includes(one)) return;
  place = asked().indexOf(one);
  drawStage();
  focusStage();
};

const undo = () => {
  const op = newOp();
  queue.add(() => ask("undo_last", { op }), undid, (error) => notice(line, "error", error.message));
};
const undid = (reply) => {
  const back = asked().find((one) => reply.undone.some(([query, image]) => query === one.query_id && image === one.image_id));
  const text = back ? "Mark taken back." : reply.undone.length ? "Undid your last action on another page." : "There is nothing left to undo.";
  notice(line, "info", text);
  live.textContent = text;
  if (!back) return;
  back.verdict = null;
  session = Math.max(0, session - 1);
  announceMark(back, null, reply.tally);
  goTo(back);
};

const skip = () => {
  const one = asked()[place];
  if (!one) return;
  one.skipped = true;
  skipped.add(named(one));
  forward();
};

const skipped = new Set(); // captions with pictures
const named = (one) => `${one.image_id} ${one.caption}`;

const more = () => queue.add(() => ask("ask_next", {}), (reply) => {
  notice(line, "info", "");
  const late = (one) => Number(skipped.has(named(one))); // what was skipped comes after all else
  batch = { state: "ready", suggestions: reply.suggestions.toSorted((a, b) => late(a) - late(b)), contested: reply.contested };
  place = 0;
  draw();
  focusStage();
}, (error) => notice(line, "error", error.message));

const verdictButtons = (chosen, act) =>
  Object.entries(VERDICTS).map(([verdict, { label, icon: sign, long }]) =>
    keyed(button(sign, label, () => act(verdict), { class: "up-button up-verdict", "data-verdict": verdict, "aria-pressed": String(chosen === verdict) }), `${label} ({${verdict}}): ${long}`));

const drawSuggestion = (one) => {
  const [sign, label] = REASONS[one.reason];
  const photo = el("img", { class: "up-suggestion-photo", draggable: "false", src: pictureUrl(one.image_id, "full"), alt: "The person to judge", width: 128, height: 384 });
  return swipes(el("article", { class: "up-suggestion", tabindex: "-1", "aria-label": `Suggestion ${place + 1} of ${asked().length}` },
    photo,
    el("div", { class: "up-suggestion-side" },
      el("p", { class: "up-fine" }, `${place + 1} of ${asked().length}`),
      el("div", { class: "up-session" }, el("progress", { class: "up-progress", max: asked().length, value: asked().length - open().length, "aria-label": "Progress of these questions" }),
        el("span", { class: "up-fine" }, `${plural(session, "mark")} in this session`)),
      el("h2", { class: "up-suggestion-caption" }, `“${one.caption}”`),
      el("div", { class: "up-suggestion-why" }, el("p", { class: "up-badge" }, icon(sign), el("span", {}, label)), el("p", {}, `${one.why}.`)),
      one.known?.length ? el("div", { class: "up-known" }, el("p", { class: "up-fine" }, "Known hits of this description"),
        el("div", { class: "up-known-pictures" }, ...one.known.map((image, number) => el("img", { src: pictureUrl(image, "thumb"), alt: `Known hit ${number + 1}`, loading: "lazy" })))) : "",
      el("p", { class: "up-fine" }, `Rank ${one.rank} · score ${one.score.toFixed(3)} · ${one.version}`)),
    el("div", { class: "up-suggestion-verdicts", role: "group", "aria-label": "Verdict" }, ...verdictButtons(one.verdict, (verdict) => judge(one, verdict))),
    el("div", { class: "up-suggestion-foot" },
      keyed(button("undo", "Undo", undo), "Take back my last mark ({back})"),
      keyed(button("skip", "Skip", skip), "Ask me another one ({skip})"),
      keyed(el("span", { class: "up-fine up-suggestion-keys" }), "Keys: {hit} hit, {miss} miss, {wrong_person} wrong person, {skip} skip, {back} take back", "text"))), (verdict) => judge(one, verdict));
};

const drawStage = () => {
  const one = asked()[place];
  if (one) { stage.replaceChildren(drawSuggestion(one)); return; }
  if (batch.state === "idle") { stage.replaceChildren(el("p", { class: "up-fine" }, "Looking for what would teach most …")); return; }
  if (batch.state === "error") {
    stage.replaceChildren(el("div", { class: "up-empty" }, button("search", "Try again", more)));
    return;
  }
  const done = asked().filter((some) => some.verdict).length;
  const [title, text] = asked().length
    ? [done ? `${plural(done, "mark")} made` : "All skipped", "Ask for more (what you skipped comes last), or go on searching: every search brings new candidates."]
    : ["Nothing to review yet", "Search for people and mark a few results first. Then this page asks for the marks that would teach most."];
  stage.replaceChildren(el("div", { class: "up-empty", tabindex: "-1" }, icon("check"), el("h2", {}, title), el("p", {}, text),
    el("div", { class: "up-suggestion-foot" }, button("more", asked().length ? "Ask for more" : "Look again", more), asked().length ? button("undo", "Undo", undo) : null)));
};

const drawContested = () => {
  const some = batch.contested || [];
  contestedPart.hidden = !some.length;
  contestedPart.replaceChildren(
    el("div", { class: "up-section-head" }, el("h2", {}, "Contradictory marks"), el("p", { class: "up-fine" }, "A tie teaches nothing until somebody decides it.")),
    el("ul", { class: "up-mark-list" }, ...some.map((one) =>
      el("li", { class: "up-mark up-contested" },
        el("img", { src: pictureUrl(one.image_id, "thumb"), alt: "Person judged both ways", width: 128, height: 384, loading: "lazy" }),
        el("div", { class: "up-mark-text" },
          el("p", { class: "up-mark-caption" }, el("a", { href: `?q=${encodeURIComponent(one.caption)}`, title: "Search for this" }, `“${one.caption}”`)),
          el("p", { class: "up-fine" }, `${plural(one.hits, "hit")}, ${plural(one.misses, "miss", "misses")}${one.verdict ? "" : " · you have not judged it"}`),
          one.query_id
            ? el("div", { class: "up-suggestion-verdicts", role: "group", "aria-label": `My verdict, ${one.caption}` }, ...verdictButtons(one.verdict, (verdict) => rejudge(one, verdict)))
            : null)))));
};

const draw = () => { drawStage(); drawContested(); };

onPage(document, "keydown", (event) => {
  if (event.defaultPrevented || event.isComposing || event.repeat || !shown(element) || typing(event.target)) return;
  const action = keyAction(event);
  const free = event.target === document.body || event.target.closest?.('[role="tab"]') // the tab that led here
    || (action === "undo" && (event.ctrlKey || event.metaKey));
  if (!free && !element.contains(event.target)) return; // another control has the focus: its keys are its own
  if (pressesButton(event, action === "skip" && event.key === " " ? "button:not(.up-verdict), a" : undefined)) return;
  const one = asked()[place];
  if (action in VERDICTS && one) judge(one, action);
  else if (action === "skip" && one) skip();
  else if (action === "back" || action === "undo") undo();
  else return;
  event.preventDefault();
});

const take = () => {
  batch = structuredClone(props.value || { state: "idle" });
  place = 0;
  notice(line, batch.state === "error" ? "error" : "info", batch.message || "");
  draw();
};

watch("value", take);
take();
