// The learning page. `props.value` is what app/pages/learning_page.py calls a board; a timer renews it.
// Each part is drawn again only when its own data changed, so focus and open dialogs survive the timer.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const [facts, line, run, versions, live] = ["facts", "line", "run", "versions", "live"].map(part);
const drawn = new Map();
let board = {};
let busy = false;
let clock = null;

const changed = (name, data) => {
  const text = JSON.stringify(data);
  if (drawn.get(name) === text) return false;
  drawn.set(name, text);
  return true;
};

const command = async (name, payload, done) => {
  if (busy) return;
  busy = true;
  element.setAttribute("aria-busy", "true");
  try {
    const reply = await ask(name, payload);
    notice(line, "info", done);
    live.textContent = done;
    board = reply.board;
    draw();
  } catch (error) {
    notice(line, "error", error.message);
  } finally {
    busy = false;
    element.removeAttribute("aria-busy");
  }
};

// Marks

const drawFacts = () => {
  if (!changed("facts", [board.tiles, board.policy, board.problem])) return;
  facts.replaceChildren(
    el("dl", { class: "up-tiles" }, ...board.tiles.map(({ label, value, note }) =>
      el("div", { class: "up-tile" }, el("dt", {}, label), el("dd", {}, el("b", {}, value), note ? el("span", {}, note) : null)))),
    el("p", { class: "up-policy" }, board.policy),
    board.problem ? el("p", { class: "up-notice up-notice-error" }, icon("alert"), el("span", { class: "up-notice-text" }, board.problem)) : "");
};

// The run under way, or how the last one ended

const bar = el("progress", { class: "up-progress", max: 1, "aria-label": "Progress of the fine-tuning" });
const stage = el("span", { class: "up-stage" });
const share = el("span", { class: "up-share" });
const elapsed = el("span", { class: "up-fine" });
const detail = el("p", { class: "up-fine" });

const tick = () => {
  if (!element.isConnected || !board.job) { clearInterval(clock); clock = null; return; }
  elapsed.textContent = `${duration(board.job.elapsed + (Date.now() - board.received) / 1000)} so far`;
};

const drawRun = () => {
  const { job } = board;
  if (job) {
    stage.textContent = job.title;
    share.textContent = `${Math.round(100 * job.fraction)} %`;
    bar.value = job.fraction;
    detail.textContent = job.message;
    tick();
    if (!clock) clock = setInterval(tick, 1000);
  }
  if (!changed("run", [job && job.id, job && job.cancelling, board.last, board.start])) return;
  if (job) {
    const cancel = button("cross", job.cancelling ? "Cancelling …" : "Cancel", () => command("cancel", {}, "The run is asked to stop."),
      { disabled: job.cancelling || !board.may_train, "data-act": "cancel" });
    run.replaceChildren(el("div", { class: "up-run" }, el("p", { class: "up-fine" }, job.kind), el("div", { class: "up-run-head" }, stage, share), bar,
      el("div", { class: "up-run-foot" }, el("div", {}, detail, elapsed), cancel)));
    return;
  }
  const reason = `up-why-${Math.random().toString(36).slice(2)}`;
  const start = button("learn", "Fine-tune now", () => command("train", {}, ""),
    { class: "up-button up-primary", disabled: Boolean(board.start.why_not), "data-act": "train", "aria-describedby": reason });
  run.replaceChildren(
    el("div", { class: "up-start" }, start, el("p", { class: "up-fine", id: reason }, board.start.why_not || board.start.what)),
    board.last
      ? el("div", { class: "up-last", "data-state": board.last.tone }, icon(board.last.tone === "good" ? "check" : board.last.tone === "bad" ? "alert" : "info"),
        el("div", {}, el("p", { class: "up-last-title" }, board.last.title), el("p", {}, board.last.reason), el("p", { class: "up-fine" }, `${when(board.last.when)}, took ${duration(board.last.took)}`)),
        compareLink(board.versions.find(({ id }) => id === board.last.version)?.compare, "See what it changed"))
      : "");
};

// Versions

// What a version changed, on a page of its own.
const compareLink = (pair, label) => pair && el("a", { class: "up-button", href: `?${new URLSearchParams({ tab: "compare", ...pair })}`,
  "aria-label": `${label}: ${pair.a} and ${pair.b}`, "data-act": "compare" }, icon("sides"), el("span", {}, label));

const STATUS = {
  serving: ["check", "Serving"], promoted: ["up", "Promoted"], base: ["info", "Base"], candidate: ["info", "Candidate"],
  rejected: ["cross", "Rejected"], retired: ["back", "Retired"],
};

const metric = (version, { key, comparable }) => {
  const value = version.metrics[key];
  const cell = el("td", { class: "up-number" }, value === null || value === undefined ? el("span", { class: "up-none", "aria-label": "not measured" }, "–") : percent(value));
  const before = version.before[key];
  if (comparable && typeof value === "number" && typeof before === "number" && Math.abs(value - before) >= 0.0005) {
    const gain = 100 * (value - before);
    cell.append(el("span", { class: "up-change", "data-good": String(gain > 0) }, `${gain > 0 ? "+" : "−"}${Math.abs(gain).toFixed(1)}`));
  }
  return cell;
};

const promote = async (version) => {
  const sure = await confirmed(`Let ${version.id} serve?`, (version.forgotten ? `${version.forgotten} ` : "") +
    (version.decision_word ? `The gate says of it: ${version.decision_word}. ${version.reason} Everybody's searches will be answered by it.` : "Everybody's searches will be answered by it."), "Promote");
  if (sure) await command("promote", { version: version.id }, `${version.id} serves now.`);
};

const rollBack = async () => {
  const sure = await confirmed("Roll back?", `${board.roll_back.to} will serve again instead of ${board.serving}. No mark and no version is lost.`, "Roll back");
  if (sure) await command("rollback", {}, `Rolled back to ${board.roll_back.to}.`);
};

const drawVersions = () => {
  if (!changed("versions", [board.versions, board.columns, board.roll_back, board.may_train])) return;
  const back = button("back", board.roll_back.to ? `Roll back to ${board.roll_back.to}` : "Roll back", rollBack,
    { disabled: Boolean(board.roll_back.why_not), title: board.roll_back.why_not, "data-act": "rollback" });
  const rows = board.versions.flatMap((version) => {
    const [sign, word] = STATUS[version.status] || ["info", version.status];
    const act = version.serving ? null : button("up", "Promote", () => promote(version),
      { disabled: !board.may_train || Boolean(board.job), "data-act": "promote", "aria-label": `Promote ${version.id}`, title: board.job ? "Wait for the run that is under way." : null });
    return [
      el("tr", { class: "up-version", "data-serving": String(version.serving), "data-version": version.id },
        el("th", { scope: "row" }, el("b", {}, version.id), el("span", { class: "up-fine" }, version.parent ? [`from ${version.parent}`, version.learnt_from].filter(Boolean).join(", ") : "no PETL weights")),
        el("td", {}, el("span", { class: "up-badge", "data-status": version.status }, icon(sign), el("span", {}, word))),
        ...board.columns.map((column) => metric(version, column)),
        el("td", { class: "up-number" }, version.marks === null ? el("span", { class: "up-none", "aria-label": "none" }, "–") : version.marks.toLocaleString("en")),
        el("td", { class: "up-when" }, when(version.created_at)),
        el("td", { class: "up-act" }, el("div", { class: "up-acts" }, compareLink(version.compare, "Compare"), act))),
      version.reason || version.decision_word || version.forgotten
        ? el("tr", { class: "up-reason" }, el("td", { colspan: board.columns.length + 5 },
          version.forgotten ? el("div", { class: "up-flag" }, icon("alert"), el("span", {}, version.forgotten)) : null,
          el("div", {}, version.decision_word ? el("b", {}, `Gate: ${version.decision_word}. `) : null, version.reason)))
        : null,
    ].filter(Boolean);
  });
  versions.replaceChildren(
    el("div", { class: "up-section-head" }, el("h2", {}, "Versions"), back),
    el("div", { class: "up-scroll", tabindex: 0, role: "region", "aria-label": "Versions" },
      el("table", { class: "up-table" },
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Version"), el("th", { scope: "col" }, "Status"),
          ...board.columns.map(({ label, title }) => el("th", { scope: "col", class: "up-number", title }, label)),
          el("th", { scope: "col", class: "up-number" }, "Marks learnt"), el("th", { scope: "col" }, "Made"),
          el("th", { scope: "col" }, el("span", { class: "up-hidden" }, "Action")))),
        el("tbody", {}, ...rows))));
};

const draw = () => {
  if (!board.tiles) {
    notice(line, board.message ? "error" : "info", board.message || "");
    return;
  }
  board.received = Date.now();
  drawFacts();
  drawRun();
  drawVersions();
};

const take = () => {
  if (busy) return; // the answer to what was just pressed is newer
  board = structuredClone(props.value || {});
  draw();
};

watch("value", take);
take();
