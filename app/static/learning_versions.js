// The versions: what each was judged by, and what people may do about it.

// What a version changed, on a page of its own.
const compareLink = (pair, label, short = false) => pair && el("a", { class: short ? "up-button up-icon-button" : "up-button", title: short ? `${label} with ${pair.a}` : null, href: `?${new URLSearchParams({ tab: "compare", ...pair })}`,
  "aria-label": `${label}: ${pair.a} and ${pair.b}`, "data-act": "compare" }, icon("sides"), short ? null : el("span", {}, label));

const opened = new Set(); // versions whose verdict is unfolded

const STATUS = {
  serving: ["check", "In use"], promoted: ["up", "Promoted"], base: ["info", "Base"], candidate: ["info", "Candidate"],
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
    (version.decision_word ? `The quality check says of it: ${version.decision_word}. ${version.reason} Everybody's searches will be answered by it.` : "Everybody's searches will be answered by it."), "Promote");
  if (sure) await command("promote", { version: version.id }, `${version.id} serves now.`);
};

const remove = async (version) => {
  const sure = await confirmed(`Delete ${version.id}?`, "Its learned weights and vectors are deleted and cannot be brought back. Marks made on its results stay.", "Delete");
  if (sure) await command("delete", { version: version.id }, `${version.id} is deleted.`);
};

const saveTable = async () => {
  try {
    const { csv, name } = await ask("table", {});
    const link = el("a", { href: URL.createObjectURL(new Blob([csv], { type: "text/csv" })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  } catch (error) {
    notice(line, "error", error.message);
  }
};

const rollBack = async () => {
  const sure = await confirmed("Roll back?", `${board.roll_back.to} will serve again instead of ${board.serving}. No mark and no version is lost.`, "Roll back");
  if (sure) await command("rollback", {}, `Rolled back to ${board.roll_back.to}.`);
};

const drawVersions = () => {
  if (!changed("versions", [board.versions, board.columns, board.roll_back, board.may_train, Boolean(board.job)])) return;
  const back = button("back", board.roll_back.to ? `Roll back to ${board.roll_back.to}` : "Roll back", rollBack,
    { disabled: Boolean(board.roll_back.why_not), title: board.roll_back.why_not, "data-act": "rollback" });
  const rows = board.versions.flatMap((version) => {
    const [sign, word] = STATUS[version.status] || ["info", version.status];
    const act = version.serving ? null : button("up", "Promote", () => promote(version),
      { disabled: !board.may_train || Boolean(board.job), "data-act": "promote", "aria-label": `Promote ${version.id}`, title: board.job ? "Wait for the run that is under way." : null });
    const gone = version.needed || !board.may_train ? null : el("button", { type: "button", class: "up-button up-icon-button", "data-act": "delete", disabled: Boolean(board.job),
      "aria-label": `Delete ${version.id}`, title: `Delete ${version.id}`, onclick: () => remove(version) }, icon("cross"));
    return [
      el("tr", { class: "up-version", "data-serving": String(version.serving), "data-version": version.id },
        el("th", { scope: "row" }, el("b", {}, version.id), el("span", { class: "up-fine" }, version.parent ? [`from ${version.parent}`, version.learnt_from].filter(Boolean).join(", ") : "as it came, without learned weights")),
        el("td", {}, el("span", { class: "up-badge", "data-status": version.status }, icon(sign), el("span", {}, word)),
          version.by_hand ? el("span", { class: "up-fine up-by-hand" }, version.by_hand) : null),
        ...board.columns.map((column) => metric(version, column)),
        el("td", { class: "up-number" }, version.marks === null ? el("span", { class: "up-none", "aria-label": "none" }, "–") : version.marks.toLocaleString("en")),
        el("td", { class: "up-when", title: when(version.created_at) }, when(version.created_at).split(", ")[0]),
        el("td", { class: "up-act" }, el("div", { class: "up-acts" }, compareLink(version.compare, "Compare", true), act, gone))),
      version.reason || version.decision_word || version.forgotten
        ? el("tr", { class: "up-reason" }, el("td", { colspan: board.columns.length + 5 },
          version.forgotten ? el("div", { class: "up-flag" }, icon("alert"), el("span", {}, version.forgotten)) : null,
          version.short ? el("details", { open: opened.has(version.id), ontoggle: (event) => { opened[event.target.open ? "add" : "delete"](version.id); } },
            el("summary", {}, el("b", {}, "Quality check: "), version.short), el("p", {}, version.reason)) : el("p", {}, version.reason)))
        : null,
    ].filter(Boolean);
  });
  versions.replaceChildren(
    el("div", { class: "up-section-head" }, el("h2", {}, "Versions"),
      el("div", { class: "up-acts" }, button("more", "Save as CSV", saveTable, { "data-act": "csv" }), back)),
    el("p", { class: "up-fine up-words" }, "The quality check (the gate) lets a new version into use only if it beats the one in use on marks held out, beats one trained on the same marks shuffled, and forgets little (at most a point of R@1). Learned weights (PETL) are what training changes; the backbone stays as it is."),
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
  readLog();
  drawChart();
  drawVersions();
};

const take = () => {
  if (busy) return; // the answer to what was just pressed is newer
  board = structuredClone(props.value || {});
  draw();
};

watch("value", take);
take();
