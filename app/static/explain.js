// Why this picture: in the enlarged view, on demand, where picture and description agree, and which words matter.
const why = (card) => {
  if (card.why?.busy) return;
  card.why = { busy: true };
  fillDialog();
  ask("explain", { query_id: board.query_id, image_id: card.candidate.image_id })
    .then((reply) => { card.why = reply; }, (error) => { card.why = { fault: error.message }; })
    .finally(() => { if (inspected === card) fillDialog(); });
};
const toggleWhy = (card) => {
  if (!card || !board.caption || board.browse) return;
  if (!card.why || card.why.fault) { why(card); return; }
  card.why.closed = !card.why.closed;
  fillDialog();
};

const PLACES = [["upper", "middle", "lower"], ["left", "middle", "right"]];

// "upper left": where the hottest part lies, for those who do not see the colours.
const hottest = (heat) => {
  const [rows, columns] = [heat.length, heat[0].length];
  const at = heat.flat().indexOf(1);
  if (at < 0) return "nowhere in particular";
  const [down, across] = [PLACES[0][Math.floor((3 * Math.floor(at / columns)) / rows)], PLACES[1][Math.floor((3 * (at % columns)) / columns)]];
  return `most in its ${[...new Set([down, across])].join(" ")} part`;
};

const heatOver = (heat, image) => {
  const map = el("canvas", { class: "up-heat", width: heat[0].length, height: heat.length, role: "img", "aria-label": `Heat map: the picture agrees with the description ${hottest(heat)}` });
  const pen = map.getContext("2d");
  const pixels = pen.createImageData(map.width, map.height);
  heat.flat().forEach((value, index) => pixels.data.set([255, Math.round(215 - 175 * value), 30, Math.round(225 * Math.sqrt(value))], 4 * index));
  pen.putImageData(pixels, 0, 0);
  const fit = () => { // over the picture itself, which keeps its shape within its box
    const scale = Math.min(image.clientWidth / image.naturalWidth, image.clientHeight / image.naturalHeight);
    if (!Number.isFinite(scale)) return;
    const width = image.naturalWidth * scale;
    Object.assign(map.style, { width: `${width}px`, height: `${image.naturalHeight * scale}px`, left: `${(image.clientWidth - width) / 2}px` });
  };
  image.addEventListener("load", fit);
  new ResizeObserver(fit).observe(image);
  return map;
};

const wordList = (words) => {
  const most = Math.max(...words.map(({ lost }) => Math.abs(lost)), 1e-6);
  return el("ul", { class: "up-why-words", "aria-label": "What each word adds" }, ...words.map(({ word, lost, known }) => {
    const share = known ? Math.round((100 * lost) / most) : 0;
    const said = !known ? "not known to the model" : share > 0 ? `adds ${lost.toFixed(3)}` : share < 0 ? `takes away ${(-lost).toFixed(3)}` : "changes nothing";
    const node = el("li", { title: `${word}: ${said}`, "data-sign": share < 0 ? "less" : "more" }, el("span", {}, word), el("span", { class: "up-hidden" }, `: ${said}`));
    node.style.setProperty("--up-share", `${Math.abs(share)}%`);
    return node;
  }));
};

// The button, and below it what is known so far.
const whyPart = (card) => {
  if (!board.caption || board.browse) return [];
  const open = card.why?.words && !card.why.closed;
  const act = keyed(button("info", card.why?.busy ? "Looking …" : open ? "Hide why" : "Why this picture", () => toggleWhy(card),
    { "data-act": "why", "aria-expanded": String(Boolean(open)) }), "Where the picture agrees with the description, and which words matter ({why})");
  if (card.why?.fault) return [act, el("p", { class: "up-fine", role: "alert" }, card.why.fault)];
  if (!open) return [act];
  return [act, el("div", { class: "up-why" }, wordList(card.why.words),
    el("p", { class: "up-fine" }, "Warm colours: what in the picture adds to the score. The stronger a word's line, the more the score would lose without it.",
      card.why.words.some(({ known }) => !known) ? " Words that the model does not know say nothing to it." : ""))];
};
