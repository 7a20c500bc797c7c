// A run in detail: its loss over the steps, settings, seed and log. Asked for while it is unfolded, so that a closed
// one costs nothing.
const logBody = el("div", { class: "up-run-log-body" });
const runLog = el("details", { class: "up-run-log", ontoggle: () => readLog() }, el("summary", {}, "Loss, settings and log"), logBody);
let logOf = ""; // the ended run whose log is shown: it does not change any more
let reading = false;

const LOSS = { width: 640, height: 110, left: 48, right: 8, top: 10, bottom: 20 };

// A line for each training of the run, one after the other: each begins with a high loss again.
const lossChart = ({ losses, steps, last_loss: last }) => {
  const values = losses.flat();
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (at) => LOSS.left + (at * (LOSS.width - LOSS.left - LOSS.right)) / Math.max(1, values.length - 1);
  const y = (value) => LOSS.height - LOSS.bottom - ((value - low) / Math.max(high - low, 1e-9)) * (LOSS.height - LOSS.top - LOSS.bottom);
  const said = `Loss over ${plural(steps, "step")} of ${plural(losses.length, "training")}: ${values[0].toFixed(3)} at first, ${last.toFixed(3)} at last`;
  const chart = node("svg", { viewBox: `0 0 ${LOSS.width} ${LOSS.height}`, class: "up-chart", role: "img", "aria-label": said });
  for (const value of high > low ? [low, high] : [low]) {
    chart.append(node("line", { x1: LOSS.left, x2: LOSS.width - LOSS.right, y1: y(value), y2: y(value), class: "up-chart-grid" }),
      node("text", { x: LOSS.left - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(2)));
  }
  let at = 0;
  for (const training of losses) {
    const points = training.map((value) => { const point = `${x(at).toFixed(1)},${y(value).toFixed(1)}`; at += 1; return point; });
    chart.append(node("polyline", { points: points.join(" "), class: "up-chart-line" }));
  }
  return el("figure", { class: "up-figure" }, el("figcaption", {}, `${said}. A round trains several times: on parts of the marks, to be judged by the others, and on shuffled ones.`), chart);
};

const drawLog = (reply) => {
  if (!changed("log", reply)) return;
  if (!reply.kept) {
    logBody.replaceChildren(el("p", { class: "up-fine" }, "There is no log of this run: the app keeps those of the last 20 runs that it started itself."));
    return;
  }
  const before = logBody.querySelector("pre");
  const atEnd = !before || before.scrollTop + before.clientHeight >= before.scrollHeight - 4;
  const kept = before?.scrollTop || 0;
  const seeds = reply.settings.filter(([name]) => name.endsWith("seed"));
  const others = reply.settings.filter(([name]) => !name.endsWith("seed"));
  const row = ([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  const unfolded = logBody.querySelector("details")?.open;
  logBody.replaceChildren(...[
    reply.steps ? lossChart(reply) : el("p", { class: "up-fine" }, "No step was taken so far."),
    reply.settings.length ? el("dl", { class: "up-settings" }, ...seeds.map(row)) : null,
    reply.settings.length ? el("details", { open: unfolded }, el("summary", {}, `Settings (${others.length})`), el("dl", { class: "up-settings" }, ...others.map(row))) : null,
    el("pre", { class: "up-log", tabindex: 0, role: "region", "aria-label": "Log of the run" }, reply.lines.join("\n") || "Nothing was written so far."),
  ].filter(Boolean));
  const log = logBody.querySelector("pre");
  log.scrollTop = atEnd ? log.scrollHeight : kept;
};

const readLog = async () => {
  const ended = board.job ? "" : board.last?.when || "";
  if (!runLog.open || !runLog.isConnected || reading || (ended && ended === logOf)) return;
  reading = true;
  try {
    drawLog(await ask("log", {}));
    logOf = ended;
  } catch (error) {
    drawn.delete("log");
    logBody.replaceChildren(el("p", { class: "up-fine", role: "alert" }, error.message));
  } finally {
    reading = false;
  }
};
