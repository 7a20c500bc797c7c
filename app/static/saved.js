// Saved searches: a name and the address that repeats the search, kept in this browser. Never an uploaded picture.
const SAVED = "up-saved-searches";
const MOST_SAVED = 50;
const savedList = el("ul", { class: "up-saved" });
const savedName = el("input", { class: "up-input", type: "text", maxlength: 80, id: "up-saved-name" });
const saver = dialog("Save this search", el("label", { class: "up-label", for: "up-saved-name" }, "Name"), savedName,
  el("p", { class: "up-fine up-saved-note" }, "Kept in this browser: the description, “without” and filters. A picture that you uploaded is not kept."),
  el("div", { class: "up-dialog-foot" }, button(null, "Save", () => keepSearch(), { class: "up-button up-primary", "data-act": "keep" })));
const saveButton = button("plus", "Save this search", () => openSaver(), { class: "up-button up-tool", "data-act": "save", "aria-haspopup": "dialog" });
const savedPanel = el("section", { class: "up-panel", "aria-label": "Saved searches" },
  el("h2", { class: "up-panel-head" }, icon("search"), el("span", {}, "Saved searches")), savedList, saveButton);
foot.before(savedPanel);

// What a browser keeps may be anything: only a list of names and addresses of this page is taken.
const savedSearches = () => {
  try {
    const kept = JSON.parse(localStorage.getItem(SAVED) || "[]");
    return Array.isArray(kept) ? kept.filter((one) => typeof one?.name === "string" && typeof one.link === "string" && one.link.startsWith("?")) : [];
  } catch {
    return [];
  }
};

const store = (some) => {
  localStorage.setItem(SAVED, JSON.stringify(some.slice(0, MOST_SAVED)));
  drawSaved();
};

// The address of the search that is shown; empty where nothing was asked.
const linkNow = () => {
  const address = new URLSearchParams(window.location.search);
  ["tab", "a", "b", "__theme"].forEach((name) => address.delete(name));
  return address.size ? `?${address}` : "";
};

const openSaver = () => {
  if (!linkNow()) { notice(line, "info", "Search for something first, or choose a filter: then it can be saved."); return; }
  const address = new URLSearchParams(linkNow());
  savedName.value = (address.get("q") || (address.has("like") ? "Pictures like one" : "Filters")).slice(0, 80);
  saver.showModal();
  savedName.select();
};

const keepSearch = () => {
  const [name, link] = [savedName.value.trim() || "Search", linkNow()];
  store([{ name, link }, ...savedSearches().filter((one) => one.link !== link && one.name !== name)]);
  saver.close();
};
savedName.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.isComposing) { event.preventDefault(); keepSearch(); } });

const drawSaved = () => {
  const some = savedSearches();
  savedList.hidden = !some.length;
  savedList.replaceChildren(...some.map(({ name, link }) => el("li", {},
    el("a", { href: link, title: name }, name),
    el("button", { type: "button", class: "up-button up-quiet", "aria-label": `Delete saved search ${name}`, title: "Delete", onclick: () => { store(savedSearches().filter((one) => one.link !== link)); saveButton.focus(); } }, icon("cross")))));
};

drawSaved();
