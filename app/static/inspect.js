// A picture enlarged, with all that is known of it. It goes on to the next one after a mark, as the grid does.
const large = dialog("Picture");
large.classList.add("up-inspect");
const largeBody = el("div", { class: "up-inspect-body" });
large.append(largeBody);
large.addEventListener("close", () => {
  const card = inspected;
  inspected = null;
  if (card) select(card, true);
});

// What the gallery knows of a picture, asked for when somebody looks.
const about = (card) => {
  if (card.about) {
    const { source, width, height, file, metadata } = card.about;
    return [["Source", source], ["Size", width ? `${width} × ${height}` : null], ["File", file], ...metadata];
  }
  ask("about", { image_id: card.candidate.image_id }).then((reply) => {
    card.about = reply;
    if (inspected === card) fillDialog();
  }, (error) => {
    card.about = { metadata: [["Details", error.message]] };
    if (inspected === card) fillDialog();
  });
  return [];
};

const likeThis = (card) => {
  large.close();
  trigger("again", { asked: { filters: board.filters || {}, ...board.asked, text: "", without: "", picture: null, like: card.candidate.image_id, image_weight: 0.5 }, address: "" });
};

const fillDialog = () => {
  const card = inspected;
  const { candidate } = card;
  large.querySelector("h2").textContent = board.browse ? "Picture" : `Rank ${candidate.rank}`;
  const facts = [
    ["Score", candidate.score?.toFixed(4)], ["Camera", candidate.camera], ["Person", candidate.pid],
    ["Taken", candidate.captured_at ? whenTaken(candidate.captured_at) : null],
    ...about(inspected),
    ["My mark", board.browse ? null : candidate.verdict ? VERDICTS[candidate.verdict].label : "none"],
    ["Version", board.version], ["Picture id", candidate.image_id],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  const buttons = board.browse ? [] : verdictButtons((verdict) => decide([inspected], verdict));
  press(buttons, candidate.verdict);
  const index = cards.indexOf(inspected);
  const kept = document.activeElement?.dataset?.act || document.activeElement?.dataset?.verdict;
  const go = (act, by, sign, label) =>
    button(sign, label, () => show(cards[index + by]), { "data-act": act, disabled: !cards[index + by] });
  const image = el("img", { class: "up-large", draggable: "false", src: pictureUrl(candidate.image_id, "full"), alt: board.browse ? "The person" : `Person ranked ${candidate.rank}` });
  largeBody.replaceChildren(
    swipes(el("div", { class: "up-large-box" }, image, card.why?.heat && !card.why.closed ? heatOver(card.why.heat, image) : ""), (verdict) => decide([card], verdict)),
    el("div", { class: "up-inspect-side" }, ...[
      board.caption ? el("p", { class: "up-inspect-caption" }, `“${board.caption}”`) : null,
      buttons.length ? el("div", { class: "up-verdicts", role: "group", "aria-label": "Verdict" }, ...buttons) : null,
      el("div", { class: "up-turn" }, go("previous", -1, "left", "Previous"), go("next", 1, "right", "Next")),
      ...whyPart(card),
      candidate.pid ? el("a", { class: "up-button", href: `?${new URLSearchParams({ tab: "person", pid: candidate.pid })}`, "data-act": "person" }, icon("tiles"), el("span", {}, "All pictures of this person")) : null,
      button("stack", "More like this", () => likeThis(card), { "data-act": "like" }),
      el("dl", { class: "up-facts up-facts-long" }, ...facts.map(([term, value]) =>
        el("div", {}, el("dt", {}, term), el("dd", { class: term === "Picture id" ? "up-id" : null }, String(value)))))].filter(Boolean)));
  if (kept) largeBody.querySelector(`[data-act="${kept}"]:not([disabled]), [data-verdict="${kept}"]`)?.focus();
};

const showNext = () => show(cards[cards.indexOf(inspected) + 1]);

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
