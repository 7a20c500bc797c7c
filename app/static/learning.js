// The learning page. `props.value` is what app/pages/learning_page.py calls a board; a timer renews it.
// Each part is drawn again only when its own data changed, so focus and open dialogs survive the timer.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const [facts, line, run, chartPart, versions, live] = ["facts", "line", "run", "chart", "versions", "live"].map(part);
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
  if (!changed("facts", [board.headline, board.next, board.help, board.tiles, board.problem, board.cutoff])) return;
  facts.replaceChildren(
    el("p", { class: "up-purpose" }, "How the model learns from marks, and what it became: every version, what it was judged by, and which one is in use."),
    el("h2", { class: "up-headline" }, board.headline),
    el("p", { class: "up-policy" }, `${board.next} ${board.help}`),
    el("dl", { class: "up-tiles" }, ...board.tiles.map(({ label, value, note }) =>
      el("div", { class: "up-tile" }, el("dt", {}, label), el("dd", {}, el("b", {}, value), note ? el("span", {}, note) : null)))),
    el("p", { class: "up-fine up-cutoff" }, board.cutoff),
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
  const seconds = board.job.elapsed + (Date.now() - board.received) / 1000;
  const share = board.job.fraction;
  const left = share >= 0.1 && share < 1 ? `, about ${duration((board.job.elapsed * (1 - share)) / share)} left`
    : share < 0.1 && board.job.usual !== null ? `; the last run of this kind took ${duration(board.job.usual)}` : "";
  elapsed.textContent = `${duration(seconds)} so far${left}`;
};

const stop = async () => {
  const sure = await confirmed("Cancel this run?", `What it has learnt so far is lost. ${board.serving} stays in use, and no mark is lost.`, "Cancel the run");
  if (sure && board.job) await command("cancel", {}, "The run is asked to stop.");
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
  if (!changed("run", [job && job.id, job && job.cancelling, board.last, board.cancelled, board.start, board.may_train])) return;
  const inDetail = board.may_train && (job || board.last) ? runLog : "";
  if (job) {
    const cancel = button("cross", job.cancelling ? "Cancelling …" : "Cancel", stop,
      { disabled: job.cancelling || !board.may_train, "data-act": "cancel" });
    run.replaceChildren(el("div", { class: "up-run" }, el("p", { class: "up-fine" }, job.kind), el("div", { class: "up-run-head" }, stage, share), bar,
      el("div", { class: "up-run-foot" }, el("div", {}, detail, elapsed), cancel)), inDetail);
    return;
  }
  const reason = `up-why-${Math.random().toString(36).slice(2)}`;
  const start = button("learn", "Fine-tune now", () => command("train", {}, ""),
    { class: "up-button up-primary", disabled: Boolean(board.start.why_not), "data-act": "train", "aria-describedby": reason });
  run.replaceChildren(
    board.cancelled ? el("p", { class: "up-fine up-cancelled" }, `${board.cancelled.text} (${when(board.cancelled.when)})`) : "",
    el("div", { class: "up-start" }, start, el("p", { class: "up-fine", id: reason }, board.start.why_not || board.start.what)),
    board.last
      ? el("div", { class: "up-last", "data-state": board.last.tone }, icon(board.last.tone === "good" ? "check" : board.last.tone === "bad" ? "alert" : "info"),
        el("div", {}, el("p", { class: "up-last-title" }, board.last.title), el("p", {}, board.last.reason), el("p", { class: "up-fine" }, `${when(board.last.when)}, took ${duration(board.last.took)}`)),
        compareLink(board.versions.find(({ id }) => id === board.last.version)?.compare, "See what it changed"))
      : "", inDetail);
};

