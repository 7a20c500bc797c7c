// Two versions side by side. `props.value` is what app/pages/compare_page.py opens with: the versions there are. The
// address says which are compared, and on which description: `?tab=compare&a=…&b=…&q=…`.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const [form, line, sides, movesPart, live] = ["form", "line", "sides", "moves", "live"].map(part);

const CHANGES = { // the sign, the word in the summary, and what a card says
  up: ["up", "moved up", ({ rank, other_rank: other }) => `${Math.abs(rank - other)} up`],
  down: ["more", "moved down", ({ rank, other_rank: other }) => `${Math.abs(rank - other)} down`],
  new: ["plus", "new", ({ other_rank: other }) => (other ? `was ${other}` : "new")],
  gone: ["minus", "gone", ({ other_rank: other }) => (other ? `now ${other}` : "gone")],
  same: ["tick", "as before", () => "as before"],
};

let versions = [];
let asked = {}; // {a, b, q}: what is shown, or on its way
let turn = 0;

const chooser = (name, label) => el("label", { class: "up-compare-version" }, el("span", {}, label), el("select", { class: "up-input", name, onchange: () => go() }));
const chooserA = chooser("a", "Before");
const chooserB = chooser("b", "After");
const [selectA, selectB] = [chooserA, chooserB].map((one) => one.querySelector("select"));
const words = el("input", { class: "up-input", name: "q", type: "text", maxlength: 1000, autocomplete: "off", placeholder: "A woman in a red coat with a black backpack" });
form.append(chooserA, button("swap", "", () => { [selectA.value, selectB.value] = [selectB.value, selectA.value]; go(); }, { class: "up-button up-icon-button", "aria-label": "Swap the versions", title: "Swap the versions" }), chooserB,
  el("label", { class: "up-compare-words" }, el("span", {}, "Description"), words),
  el("button", { type: "submit", class: "up-button up-primary" }, icon("search"), el("span", {}, "Compare")));
form.addEventListener("submit", (event) => { event.preventDefault(); go(); });

const fromAddress = () => {
  const address = new URLSearchParams(window.location.search);
  return Object.fromEntries(["a", "b", "q"].map((name) => [name, address.get(name) || ""]));
};

const toAddress = (wanted) => {
  const url = new URL(window.location.href);
  url.searchParams.set("tab", "compare");
  for (const [name, value] of Object.entries(wanted)) {
    if (value) url.searchParams.set(name, value);
    else url.searchParams.delete(name);
  }
  if (url.href !== window.location.href) window.history.pushState({}, "", url);
};

const addressOf = (q) => `?${new URLSearchParams({ tab: "compare", a: asked.a, b: asked.b, q })}`;

// What the form says becomes the address, and is shown.
const go = (q = words.value.trim()) => {
  const wanted = { a: selectA.value, b: selectB.value, q };
  toAddress(wanted);
  show(wanted);
};

const show = async (wanted) => {
  const samePair = wanted.a === asked.a && wanted.b === asked.b;
  asked = wanted;
  const number = turn += 1;
  words.value = wanted.q;
  for (const [select, id] of [[selectA, wanted.a], [selectB, wanted.b]]) if ([...select.options].some(({ value }) => value === id)) select.value = id;
  notice(line, "info", "");
  if (!wanted.q) sides.replaceChildren();
  if (!samePair) movesPart.replaceChildren();
  if (!wanted.a || !wanted.b) return;
  element.setAttribute("aria-busy", "true");
  try {
    if (wanted.q) {
      live.textContent = "Comparing";
      const reply = await ask("compare", wanted);
      if (number !== turn) return;
      drawSides(reply);
    }
    if (!samePair || !movesPart.childElementCount) {
      movesPart.replaceChildren(el("p", { class: "up-fine" }, "Looking at all marked descriptions …"));
      const reply = await ask("moved", { a: wanted.a, b: wanted.b });
      if (number === turn) drawMoves(reply);
    }
  } catch (error) {
    if (number !== turn) return;
    notice(line, "error", error.message);
    if (!movesPart.querySelector("h2")) movesPart.replaceChildren();
  } finally {
    if (number === turn) element.removeAttribute("aria-busy");
  }
};

// One ranking on each side; a line joins the two places of a picture while it is pointed at, or has the focus.
const svg = (tag) => document.createElementNS("http://www.w3.org/2000/svg", tag);
const path = svg("line");
const drawing = svg("svg");
drawing.setAttribute("class", "up-link");
drawing.setAttribute("aria-hidden", "true");
drawing.append(path);

const twins = (image) => [...sides.querySelectorAll(`[data-image="${image}"]`)];

const join = (image) => {
  for (const card of sides.querySelectorAll(".up-twin")) card.classList.remove("up-twin");
  const some = image ? twins(image) : [];
  some.forEach((card) => card.classList.add("up-twin"));
  drawing.toggleAttribute("data-on", some.length === 2);
  if (some.length !== 2) return;
  const around = sides.getBoundingClientRect();
  const [left, right] = some.map((card) => card.querySelector("img").getBoundingClientRect());
  const ends = { x1: left.right, y1: left.top + left.height / 2, x2: right.left, y2: right.top + right.height / 2 };
  for (const [name, value] of Object.entries(ends)) path.setAttribute(name, value - (name[0] === "x" ? around.left : around.top));
};

for (const type of ["pointerover", "focusin"]) sides.addEventListener(type, (event) => join(event.target.closest("[data-image]")?.dataset.image));
for (const type of ["pointerleave", "focusout"]) sides.addEventListener(type, () => join(null));

const large = dialog("Picture");
const enlarge = (place, version) => {
  large.querySelector("h2").textContent = `Rank ${place.rank} by ${version}`;
  large.querySelector(".up-inspect-body")?.remove();
  const facts = [["Score", place.score.toFixed(4)], [`By the other`, place.other_rank ? `rank ${place.other_rank}` : "not among those compared"], ["Camera", place.camera], ["Person", place.pid],
    ["My mark", place.verdict && VERDICTS[place.verdict].label]].filter(([, value]) => value);
  large.append(el("div", { class: "up-inspect-body" }, el("img", { class: "up-large", src: pictureUrl(place.image_id, "full"), alt: `Person ranked ${place.rank}` }),
    el("div", { class: "up-inspect-side" }, el("p", { class: "up-inspect-caption" }, `“${asked.q}”`),
      el("dl", { class: "up-facts up-facts-long" }, ...facts.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, String(value))))),
      el("p", {}, el("a", { href: `?q=${encodeURIComponent(asked.q)}` }, "Search for this, and mark")))));
  large.showModal();
};

const placeCard = (place, version) => {
  const [sign, word, text] = CHANGES[place.change];
  const said = text(place);
  return el("li", {}, el("button", { type: "button", class: "up-place", "data-image": place.image_id, "data-change": place.change, onclick: () => enlarge(place, version),
    "aria-label": [`Rank ${place.rank} by ${version}`, word === said ? null : word, said, place.verdict && `marked ${VERDICTS[place.verdict].label}`].filter(Boolean).join(", ") },
  el("img", { src: pictureUrl(place.image_id, "thumb"), alt: "", loading: "lazy", draggable: "false" }),
  el("span", { class: "up-rank" }, String(place.rank)),
  place.verdict ? el("span", { class: "up-place-mark", "data-verdict": place.verdict }, icon(VERDICTS[place.verdict].icon)) : null,
  el("span", { class: "up-place-change" }, icon(sign), el("span", {}, said))));
};

const sideOf = (places, version, label) => el("section", { class: "up-side", "aria-label": `${label}: ${version}` },
  el("h3", {}, `${label}: ${version}`), el("ol", { class: "up-places" }, ...places.map((place) => placeCard(place, version))));

const drawSides = (found) => {
  const count = (change, places) => places.filter((place) => place.change === change).length;
  const counts = [["up", found.b], ["down", found.b], ["new", found.b], ["gone", found.a], ["same", found.b]]
    .map(([change, places]) => el("span", { class: "up-badge", "data-change": change }, icon(CHANGES[change][0]), el("span", {}, `${count(change, places)} ${CHANGES[change][1]}`)));
  sides.replaceChildren(
    el("div", { class: "up-section-head" }, el("h2", {}, `“${found.caption}”`), el("div", { class: "up-change-counts" }, ...counts)),
    found.note ? el("p", { class: "up-fine" }, found.note) : "",
    el("div", { class: "up-two" }, sideOf(found.a, found.version_a, "Before"), sideOf(found.b, found.version_b, "After")), drawing);
  live.textContent = `Compared on “${found.caption}”: ${counts.map((one) => one.textContent).join(", ")}`;
};
