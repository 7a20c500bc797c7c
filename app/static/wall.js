// The picture wall: pictures in rows of nearly equal height, each as wide as its own shape makes it. Only cards near
// the window are in the page, so that thousands of results scroll as smoothly as twenty.
const GAP = 8;
/** @type {[string, number][]} */
const SIZES = [["S", 240], ["M", 360], ["L", 480], ["XL", 640]];
const THUMB = 420; // pixels of height up to which a thumbnail is sharp enough
const FEW = 160; // so many cards are all kept in the page
const MOST = 280;
const AHEAD = 1400; // pixels above and below the window that are kept ready
const PHONE = { columns: 2, height: 284, beside: 46, labels: 70 }; // `beside`: least width of the verdicts; with `labels` they have words
const ASPECTS = [0.22, 1.3]; // beyond these a picture gets bars instead of a card of its shape
const STORED = "up-size";

const phone = window.matchMedia("(max-width: 640px)");
let places = []; // of `cards`, by index: {left, top, width, height, row}
let size = Number(localStorage.getItem(STORED) ?? 1);
if (!(size >= 0 && size < SIZES.length)) size = 1;

const shape = (card) => Math.min(ASPECTS[1], Math.max(ASPECTS[0], card.candidate.aspect || 1 / 3));

const inColumns = (width) => {
  const each = (width - GAP * (PHONE.columns - 1)) / PHONE.columns;
  return cards.map((_, index) => {
    const row = Math.floor(index / PHONE.columns);
    return { left: (index % PHONE.columns) * (each + GAP), top: row * (PHONE.height + GAP), width: each, height: PHONE.height, row };
  });
};

const inRows = (width, wanted) => {
  const found = [];
  let [row, top, scale] = [0, 0, 1];
  let [some, sum] = [[], 0]; // the widths of the row that is being filled
  const place = (last) => {
    const fitting = (width - GAP * (some.length - 1)) / sum;
    scale = last && fitting > scale ? scale : fitting; // a last row that is not full stays as high as the others
    let left = 0;
    for (const one of some) {
      found.push({ left: Math.round(left), top, width: Math.round(left + one * scale) - Math.round(left), height: Math.round(wanted * scale), row });
      left += one * scale + GAP;
    }
    top += Math.round(wanted * scale) + GAP;
    row += 1;
    [some, sum] = [[], 0];
  };
  for (const card of cards) {
    const one = shape(card) * wanted;
    const [now, then] = [(width - GAP * (some.length - 1)) / sum, (width - GAP * some.length) / (sum + one)];
    if (some.length && then < 1 && Math.abs(Math.log(then)) > Math.abs(Math.log(now))) place(false);
    some.push(one);
    sum += one;
  }
  if (some.length) place(true);
  return found;
};

const arrangeWall = () => {
  const width = list.clientWidth;
  if (!width || !cards.length) { list.style.height = ""; return; }
  element.classList.toggle("up-phone", phone.matches);
  element.dataset.size = SIZES[size][0];
  if (phone.matches) places = board.browse ? inRows(width, PHONE.height) : inColumns(width);
  else places = inRows(width, SIZES[size][1]);
  const end = places.at(-1);
  list.style.height = `${end.top + end.height}px`;
  showWindow();
};

// Which cards are near the window: [from, to).
const nearby = () => {
  if (cards.length <= FEW) return [0, cards.length];
  const above = -list.getBoundingClientRect().top;
  const first = places.findIndex((place) => place.top + place.height > above - AHEAD);
  if (first < 0) return [Math.max(0, cards.length - MOST), cards.length];
  const after = places.findIndex((place, index) => index >= first && place.top > above + window.innerHeight + AHEAD);
  const to = after < 0 ? cards.length : after;
  if (to - first <= MOST) return [first, to];
  const seen = places.findIndex((place) => place.top + place.height > above); // very small pictures: less is kept ready
  const from = Math.max(first, seen - MOST / 4);
  return [from, Math.min(to, from + MOST)];
};

const attach = (index) => {
  const [card, place] = [cards[index], places[index]];
  if (!card.node) makeCard(card);
  const { style } = card.node;
  style.transform = `translate(${place.left}px, ${place.top}px)`;
  style.width = `${place.width}px`;
  style.height = `${place.height}px`;
  const photo = Math.min(place.width - PHONE.beside, Math.round(place.height * shape(card))); // on a phone; the verdicts have the rest
  style.setProperty("--up-photo", `${photo}px`);
  card.node.classList.toggle("up-labelled", place.width - photo >= PHONE.labels);
  card.node.setAttribute("aria-posinset", index + 1);
  card.node.setAttribute("aria-setsize", cards.length);
  sharpen(card, place.height);
  return card.node;
};

const sharpen = (card, height) => {
  const wanted = pictureUrl(card.candidate.image_id, height > THUMB && !phone.matches ? "full" : "thumb");
  if (card.picture.getAttribute("src") !== wanted) card.picture.src = wanted;
};

const showWindow = () => {
  if (!cards.length || places.length !== cards.length) return;
  const [from, to] = nearby();
  const wanted = new Set();
  for (let index = from; index < to; index += 1) wanted.add(index);
  wanted.add(current); // or the focus would be lost
  const order = [...wanted].filter((index) => index < cards.length).sort((a, b) => a - b).map(attach);
  const keep = new Set(order);
  [...list.children].filter((node) => !keep.has(node)).forEach((node) => node.remove());
  order.forEach((node, index) => { if (list.children[index] !== node) list.insertBefore(node, list.children[index] || null); });
  for (const card of cards) if (card.node && !keep.has(card.node)) { eyes.unobserve(card.node); card.node = null; }
  order.forEach((node) => eyes.observe(node));
};

// Which pictures were on screen: only those may be judged together.
const eyes = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const card = entry.isIntersecting && cardOf(entry.target.dataset.image);
    if (card && !card.seen) { card.seen = true; counts(); }
  }
}, { threshold: 0.6 });

let awaited = 0;
const soon = () => { awaited ||= requestAnimationFrame(() => { awaited = 0; showWindow(); }); };
onPage(window, "scroll", soon);
new ResizeObserver(() => { if (list.clientWidth) arrangeWall(); }).observe(list);
phone.addEventListener("change", () => arrangeWall());

// Bring a card into the window, below what sticks to its top.
const reveal = (index) => {
  const place = places[index];
  if (!place) return;
  const start = list.getBoundingClientRect().top;
  const [top, bottom] = [start + place.top, start + place.top + place.height];
  const room = [stickyHeight() + GAP, window.innerHeight - (phone.matches ? 118 : GAP)];
  if (top < room[0] || bottom - top > room[1] - room[0]) window.scrollBy({ top: top - room[0], behavior: "instant" });
  else if (bottom > room[1]) window.scrollBy({ top: bottom - room[1], behavior: "instant" });
  showWindow();
};

const stickyHeight = () => [document.querySelector("#up-search"), phone.matches ? null : bar]
  .reduce((sum, node) => sum + (node ? node.offsetHeight : 0), 0);

// The card above or below: the one whose middle is nearest in the next row.
const across = (index, rows) => {
  const here = places[index];
  const middle = here.left + here.width / 2;
  const off = ({ left, width }) => Math.abs(left + width / 2 - middle);
  return places.reduce((best, place, at) =>
    (place.row === here.row + rows && (best < 0 || off(place) < off(places[best])) ? at : best), -1);
};

const sizer = el("input", { type: "range", min: 0, max: SIZES.length - 1, step: 1, value: size, class: "up-size", "aria-label": "Size of the pictures",
  "aria-valuetext": SIZES[size][0], title: "Size of the pictures",
  oninput: () => {
    size = sizer.valueAsNumber;
    localStorage.setItem(STORED, String(size));
    sizer.setAttribute("aria-valuetext", SIZES[size][0]);
    const kept = cards[current];
    arrangeWall();
    if (kept) reveal(current);
  } });
