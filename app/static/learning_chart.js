// Every version on the same fixed set, as a line; and what the one in use gained from what.
const node = (tag, attributes, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

const CHART = { width: 640, height: 190, left: 66, right: 44, top: 22, bottom: 34 };

const lineOf = (points) => {
  const known = points.filter(({ value }) => value !== null);
  const values = known.map(({ value }) => value);
  const [low, high] = [Math.max(0, Math.floor(20 * Math.min(...values) - 0.5) / 20), Math.min(1, Math.ceil(20 * Math.max(...values) + 0.5) / 20)];
  const x = (index) => CHART.left + (index * (CHART.width - CHART.left - CHART.right)) / Math.max(1, points.length - 1);
  const y = (value) => CHART.height - CHART.bottom - ((value - low) / (high - low)) * (CHART.height - CHART.top - CHART.bottom);
  const said = points.map(({ id, value }) => `${id} ${value === null ? "not measured" : percent(value)}`).join(", ");
  const chart = node("svg", { viewBox: `0 0 ${CHART.width} ${CHART.height}`, class: "up-chart", role: "img", "aria-label": `Share of test descriptions that find the right person first: ${said}` });
  for (const value of [low, (low + high) / 2, high]) {
    chart.append(node("line", { x1: CHART.left, x2: CHART.width - CHART.right, y1: y(value), y2: y(value), class: "up-chart-grid" }),
      node("text", { x: CHART.left - 8, y: y(value) + 4, "text-anchor": "end" }, `${Math.round(100 * value)} %`));
  }
  const every = Math.ceil(points.length / 12); // more names than that would overlap
  const places = points.map((point, index) => ({ ...point, x: x(index), y: point.value === null ? null : y(point.value) }));
  chart.append(node("polyline", { points: places.filter((one) => one.y !== null).map((one) => `${one.x},${one.y}`).join(" "), class: "up-chart-line" }));
  places.forEach((one, index) => {
    if (one.y === null) {
      chart.append(node("text", { x: one.x, y: CHART.height - CHART.bottom - 6, "text-anchor": "middle" }, "?"));
    } else {
      chart.append(node("circle", { cx: one.x, cy: one.y, r: one.in_use ? 6 : 4, class: one.in_use ? "up-chart-used" : "up-chart-dot" }, node("title", {}, `${one.id}: ${percent(one.value)}`)),
        node("text", { x: one.x, y: one.y - 10, "text-anchor": "middle", class: "up-chart-value" }, String(Math.round(100 * one.value))));
    }
    if (index % every === 0 || one.in_use) chart.append(node("text", { x: one.x, y: CHART.height - 12, "text-anchor": "middle", class: one.in_use ? "up-chart-value" : "" }, one.id));
  });
  return chart;
};

const drawChart = () => {
  if (!changed("chart", [board.chart, board.origins, board.may_train, Boolean(board.job)])) return;
  const { points, missing } = board.chart;
  const measure = (id) => button("learn", `Measure ${id}`, () => command("measure", { version: id }, `${id} is being measured.`),
    { disabled: !board.may_train || Boolean(board.job), title: board.may_train ? null : "Only an administrator of this app may start a run.", "data-act": "measure" });
  chartPart.replaceChildren(
    points.length ? el("figure", { class: "up-figure" }, el("figcaption", {}, "Test descriptions that find the right person first (R@1), the same ones for every version"), lineOf(points)) : "",
    missing.length ? el("div", { class: "up-missing" }, el("p", { class: "up-fine" }, `Never measured on the test descriptions: ${missing.join(", ")}.`),
      el("div", { class: "up-acts" }, ...missing.map(measure))) : "",
    board.origins.length ? el("div", { class: "up-origins" }, el("h3", {}, "What came from what"), el("ul", {}, ...board.origins.map((text) => el("li", {}, text)))) : "");
};
