// The result grid. `props.value` is what app/pages/search_page.py calls a board: one answer and the user's tally, or
// pictures of the gallery where nothing was asked. This part holds what the others share.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const [head, line, welcome, list, foot, bar, tally, actions, live, toastBox, pickedBar] =
  ["head", "line", "welcome", "list", "foot", "bar", "tally", "actions", "live", "toast", "picked"].map(part);

let board = {};
let all = []; // in rank order: {candidate, stored, token, seen, and while it is near the window: node, buttons, state}
let cards = []; // those of them that are shown: near duplicates are folded into the best-ranked of them
let byId = new Map(); // `all` by the id of the picture
let leaders = {}; // the ids of near duplicates, each with that of the card which represents it
let unfolded = new Set(); // ids of cards whose near duplicates are shown
let weakFrom = null; // the first card that is a weak match
let picks = new Set(); // cards that are selected to be judged together
let current = 0;
let inspected = null;

const say = (text) => { live.textContent = text; };
const cardOf = (imageId) => byId.get(imageId);
const newCard = (candidate) => ({ candidate, stored: candidate.verdict, token: 0, seen: false, node: null });

// A message that lies over the page, so that nothing moves while somebody marks. Bad news stays until it is closed.
let toastTimer = 0;
const toast = (kind, text, ...acts) => {
  clearTimeout(toastTimer);
  (large.open ? large : list.parentElement).append(toastBox); // an open dialog lies over all else
  notice(toastBox, kind, text, ...acts, el("button", { type: "button", class: "up-button up-quiet", "aria-label": "Close this message", onclick: () => toast("info", "") }, icon("cross")));
  toastBox.classList.add("up-toast");
  if (text && kind !== "error") toastTimer = setTimeout(() => { toastBox.hidden = true; }, 9000);
};

const showTally = (value) => {
  if (!value) return;
  board.tally = value;
  const items = [["hit", value.hits, "hit"], ["miss", value.misses, "miss"], ["wrong_person", value.wrong_person, "wrong person"]];
  const totals = items.map(([verdict, count, word]) =>
    el("span", { class: "up-count", "data-verdict": verdict, title: `My marks, ${VERDICTS[verdict].label}: ${count}` },
      icon(VERDICTS[verdict].icon), el("b", {}, count.toLocaleString("en")),
      el("span", { class: "up-hidden" }, word === "wrong person" ? word : count === 1 ? word : word === "hit" ? "hits" : "misses")));
  tally.replaceChildren(el("span", { class: "up-counts", role: "group", "aria-label": "My marks", title: value.until }, ...totals), el("span", { class: "up-until" }, value.until));
};

const searchAgain = () => button("search", "Search again", () => trigger("again", { asked: board.asked, address: "" }));

const answer = (reply) => {
  showTally(reply.tally);
  const newer = reply.serving && board.version && reply.serving !== board.version;
  if (newer && !board.announced) {
    board.announced = true;
    toast("info", `A newer version, ${reply.serving}, is in use now. These results are from ${board.version}.`, searchAgain());
  }
};

const came = (/** @type {any} */ { detail }) => {
  if (!element.isConnected) document.removeEventListener("up-added", came);
  else if (board.state === "results") {
    notice(line, "info", `Pictures were added: ${detail.toLocaleString("en")}. These results are from before.`, searchAgain());
  } else if (board.browse) trigger("again", { asked: null, address: window.location.search });
};
document.addEventListener("up-added", came);
