// What can be asked beside the description: a picture, "without …", filters. `props.value` is what
// app/pages/search_page.py calls tools: {asked, facets, may_add, at}. The description itself stays in its box.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const [row, rail, line, picturePanel, withoutPanel, filtersPanel, foot] = ["row", "rail", "line", "picture", "without", "filters", "foot"].map(part);
const NAME = { camera: "Camera", source: "Source" };
const MOST_BYTES = 50e6;
const MOST_VALUES = 200; // that filters may name together: the store takes no more

let asked = {};
let facets = {};
let preview = null; // the address of the uploaded picture, for as long as it is shown

const captionBox = () => document.querySelector("#up-caption textarea");
const search = () => document.querySelector("#up-go")?.click();
const hasPicture = () => Boolean(asked.picture || asked.like);
const lists = () => [...["camera", "source"].map((name) => [name, NAME[name], facets[name] || {}]),
  ...Object.entries(facets.metadata || {}).map(([key, values]) => [`meta.${key}`, key, values])];

// The lists of values that are chosen, where they lie in the filters. Keys are the user's own words: `constructor` is
// one like any other, so only an object's own properties count.
const own = (object, name) => (object && Object.hasOwn(object, name) ? object[name] : undefined);
const chosen = (name) =>
  (name.startsWith("meta.") ? own(asked.filters.metadata, name.slice(5)) : own(asked.filters, name)) || [];
const choose = (name, values) => {
  if (!name.startsWith("meta.")) { asked.filters[name] = values; return; }
  asked.filters.metadata = { ...asked.filters.metadata, [name.slice(5)]: values };
  if (!values.length) delete asked.filters.metadata[name.slice(5)];
};
const countFilters = () =>
  lists().filter(([name]) => chosen(name).length).length + Number(Boolean(asked.filters.pid?.length)) +
  Number(Boolean(asked.filters.captured_from || asked.filters.captured_to));
const countValues = () => lists().reduce((sum, [name]) => sum + chosen(name).length, (asked.filters.pid || []).length);

// Ids of people, between commas; one that holds a comma or a quote is itself put in quotes, as in CSV.
const idsIn = (text) =>
  [...text.matchAll(/"((?:[^"]|"")*)"|[^,\s][^,]*/g)]
    .map(([whole, quoted]) => (quoted === undefined ? whole : quoted.replaceAll('""', '"')).trim())
    .filter(Boolean);
const idsAsText = (ids) => ids.map((id) => (/[",]/.test(id) ? `"${id.replaceAll('"', '""')}"` : id)).join(", ");

// The rail stands beside the results; on narrow pages it is a drawer behind a button.
const wide = window.matchMedia("(min-width: 900px)");
const drawer = dialog("Refine the search");
drawer.classList.add("up-drawer");
const opener = button("sliders", "Filters", () => openDrawer(), { class: "up-button up-tool", "data-tool": "drawer", "aria-haspopup": "dialog" });
row.append(opener);
const openDrawer = () => {
  if (wide.matches || drawer.open) return;
  drawer.append(rail);
  drawer.showModal();
};
drawer.addEventListener("close", () => row.after(rail));
wide.addEventListener("change", () => drawer.close());

const heads = Object.fromEntries([["picture", "picture", "Picture"], ["without", "minus", "Without"], ["filters", "filter", "Filters"]].map(([name, sign, text]) =>
  [name, el("h2", { class: "up-panel-head", "data-head": name }, icon(sign), el("span", {}, text), el("span", { class: "up-fine" }))]));
const label = (name, text) => {
  heads[name].lastChild.textContent = text;
  heads[name].toggleAttribute("data-active", Boolean(text));
};
const drawRow = () => {
  label("picture", hasPicture() ? "in use" : "");
  label("without", asked.without.trim() ? "in use" : "");
  const count = countFilters();
  label("filters", count ? `${count} in use` : "");
  filtersPanel.querySelector(".up-facet-foot")?.toggleAttribute("hidden", !count);
  withoutPanel.querySelector("[data-act=no-without]").toggleAttribute("hidden", !asked.without.trim());
  const active = count + Number(hasPicture()) + Number(Boolean(asked.without.trim()));
  opener.querySelector("span").textContent = active ? `Filters: ${active}` : "Filters";
  opener.toggleAttribute("data-active", active > 0);
};
const fault = (text) => { notice(line, "error", text); openDrawer(); };

// A picture: chosen, dropped anywhere on the page, or pasted

const file = el("input", { type: "file", accept: "image/*,.tif,.tiff", class: "up-hidden", tabindex: -1, "aria-label": "Picture to search by",
  onchange: () => { if (file.files[0]) take(file.files[0]); file.value = ""; } });

const forget = () => {
  if (preview) URL.revokeObjectURL(preview);
  preview = null;
  Object.assign(asked, { picture: null, like: "", image_weight: 0.5 });
};

const take = async (picture) => {
  notice(line, "info", "");
  if (!picture.type.startsWith("image/")) { fault(`“${picture.name}” is no picture: choose a JPEG, PNG or WebP file.`); return; }
  if (picture.size > MOST_BYTES) { fault("A picture may have 50 MB at most: make it smaller, or crop it to the person."); return; }
  picturePanel.setAttribute("aria-busy", "true");
  try {
    const { path } = await upload(picture);
    forget();
    asked.picture = { path, name: picture.name };
    preview = URL.createObjectURL(picture);
    drawPicture();
    drawRow();
    drawer.close();
    search();
  } catch {
    fault("The picture could not be sent: check that the app still runs, then try again.");
  }
  picturePanel.removeAttribute("aria-busy");
};

const drawPicture = () => {
  const choosing = button("picture", hasPicture() ? "Another" : "Choose a picture", () => file.click(), { "data-act": "choose" });
  if (!hasPicture()) {
    picturePanel.replaceChildren(heads.picture, file, el("div", { class: "up-drop" }, choosing,
      el("p", { class: "up-fine", title: "It is deleted after a day, and never part of the gallery." }, "or drop or paste one. It is deleted after a day.")));
    return;
  }
  const address = asked.like ? pictureUrl(asked.like, "thumb") : preview || "";
  const weight = el("input", { type: "range", min: 0, max: 100, step: 10, value: Math.round(100 * asked.image_weight), "aria-label": "Weight of the picture, in percent",
    oninput: () => { asked.image_weight = weight.valueAsNumber / 100; share.textContent = shareText(); },
    onchange: search });
  const share = el("output", { class: "up-share" }, shareText());
  const sample = el("img", { class: "up-sample", src: address, alt: "The picture you search by", onerror: () => { sample.hidden = true; } });
  picturePanel.replaceChildren(heads.picture, file, el("div", { class: "up-picked" }, sample,
    el("div", { class: "up-picked-side" },
      el("p", {}, asked.like ? "A picture of the gallery" : asked.picture.name),
      el("div", { class: "up-weights", hidden: !captionBox()?.value.trim() }, el("span", {}, "Words"), weight, el("span", {}, "Picture"), share),
      el("div", { class: "up-picked-acts" }, choosing,
        button("cross", "Remove", () => { forget(); drawPicture(); drawRow(); if (captionBox()?.value.trim()) search(); captionBox()?.focus(); }, { "data-act": "remove" })))));
};
const shareText = () => `${Math.round(100 * asked.image_weight)} %`;

const pictureIn = (data) => [...(data?.files || [])].find((one) => one.type.startsWith("image/"));
const overlay = el("div", { class: "up-dropping", hidden: true }, el("p", {}, icon("picture"), "Drop the picture to search by it"));
element.append(overlay);
const dragging = (event) => shown(element) && !document.querySelector("dialog[open]") && event.dataTransfer?.types.includes("Files");
onPage(document, "dragover", (event) => { if (dragging(event)) { event.preventDefault(); overlay.hidden = false; } });
onPage(document, "dragleave", (event) => { if (!event.relatedTarget) overlay.hidden = true; });
onPage(document, "drop", (event) => {
  overlay.hidden = true;
  if (!dragging(event)) return;
  event.preventDefault();
  const picture = pictureIn(event.dataTransfer);
  if (picture) take(picture);
  else fault("That is no picture: drop a JPEG, PNG or WebP file.");
});
onPage(document, "paste", (event) => {
  const picture = shown(element) && !document.querySelector("dialog[open]") && pictureIn(event.clipboardData);
  if (picture) { event.preventDefault(); take(picture); }
});
onPage(document, "input", (event) => { // the weight counts only beside words
  const weights = event.target === captionBox() && picturePanel.querySelector(".up-weights");
  if (weights) weights.hidden = !event.target.value.trim();
});

// Without

const without = el("input", { type: "text", class: "up-input", maxlength: 1000, id: "up-without", placeholder: "a hat, a backpack …", autocomplete: "off",
  oninput: () => { asked.without = without.value; drawRow(); },
  onkeydown: (event) => { if (event.key === "Enter" && !event.isComposing) { event.preventDefault(); search(); } } });
withoutPanel.append(heads.without, el("label", { for: "up-without", class: "up-label up-hidden" }, "What should not be there"),
  el("div", { class: "up-with-button" }, without,
    el("button", { type: "button", class: "up-button up-quiet", "aria-label": "Remove what should not be there", "data-act": "no-without", onclick: () => { const had = asked.without.trim(); asked.without = ""; without.value = ""; drawRow(); if (had) search(); without.focus(); } }, icon("cross"))));

// Filters

const filterChanged = () => {
  drawRow();
  if (captionBox()?.value.trim() || hasPicture()) search();
  else document.dispatchEvent(new CustomEvent("up:browse", { detail: structuredClone(asked) })); // pictures without a query
};

const drawChoices = (name, title, values) => {
  const boxes = Object.entries(values).map(([value, count]) => {
    const box = el("input", { type: "checkbox", value, onchange: () => {
      if (box.checked && countValues() >= MOST_VALUES) {
        box.checked = false;
        fault(`Filters name at most ${MOST_VALUES} values together: remove some, then choose others.`);
        return;
      }
      choose(name, box.checked ? [...chosen(name), value] : chosen(name).filter((one) => one !== value));
      filterChanged();
    } });
    box.checked = chosen(name).includes(value);
    return el("label", { class: "up-choice" }, box, el("span", {}, value || "(empty)"), el("span", { class: "up-fine" }, count.toLocaleString("en")));
  });
  return el("fieldset", { class: "up-facet", "data-facet": name }, el("legend", {}, title), el("div", { class: "up-choices" }, ...boxes));
};

const drawDay = (name, title) => {
  const [first, last] = [facets.captured_from, facets.captured_to].map((moment) => moment.slice(0, 10));
  const box = el("input", { type: "date", class: "up-input", min: first, max: last, onchange: () => { asked.filters[name] = box.value; filterChanged(); } });
  box.value = (asked.filters[name] || "").slice(0, 10);
  return el("label", { class: "up-label" }, title, box);
};

const drawFilters = () => {
  const total = Object.values(facets.source || {}).reduce((sum, count) => sum + count, 0); // every picture has a source
  const divides = (values) => Object.values(values).some((count) => count < total); // a value that all have filters nothing
  const parts = lists().filter(([name, , values]) => divides(values) || chosen(name).length)
    .map(([name, title, values]) => drawChoices(name, title, { ...Object.fromEntries(chosen(name).map((one) => [one, 0])), ...values }));
  if (facets.captured_from) {
    parts.push(el("fieldset", { class: "up-facet", "data-facet": "captured" }, el("legend", {}, "Taken (UTC)"),
      el("div", { class: "up-days" }, drawDay("captured_from", "from"), drawDay("captured_to", "to"))));
  }
  if (facets.pids > 1 || asked.filters.pid?.length) {
    const box = el("input", { type: "text", class: "up-input", placeholder: 'id, "id, with a comma", …', "aria-label": "Person ids", autocomplete: "off",
      onchange: () => { asked.filters.pid = idsIn(box.value); filterChanged(); } });
    box.value = idsAsText(asked.filters.pid || []);
    parts.push(el("fieldset", { class: "up-facet", "data-facet": "pid" }, el("legend", {}, "Person"), box));
  }
  const active = filtersPanel.contains(document.activeElement) ? document.activeElement : null;
  const kept = active && [active.closest(".up-facet")?.dataset.facet, active.value];
  filtersPanel.hidden = !parts.length;
  filtersPanel.replaceChildren(heads.filters, ...parts);
  if (parts.length) {
    filtersPanel.append(el("div", { class: "up-facet-foot" }, button("cross", "Remove all filters", () => {
      asked.filters = {};
      drawFilters();
      filterChanged();
      filtersPanel.querySelector("input")?.focus();
    }, { "data-act": "no-filters" })));
  }
  const facet = kept && [...filtersPanel.querySelectorAll(".up-facet")].find((one) => one.dataset.facet === kept[0]);
  if (facet) [...facet.querySelectorAll("input")].find((one) => one.value === kept[1])?.focus();
};

// In and out

onPage(document, "up:collect", (event) => Object.assign(event.detail, structuredClone(asked)));

const redraw = () => {
  const came = structuredClone(props.value || {});
  if (came.opening && (hasPicture() || asked.without || (asked.filters && countFilters()))) came.asked = asked; // slower than the person
  const kept = came.asked?.picture && came.asked.picture.path === asked.picture?.path;
  if (preview && !kept) { URL.revokeObjectURL(preview); preview = null; }
  asked = { text: "", without: "", like: "", picture: null, image_weight: 0.5, ...came.asked, filters: came.asked?.filters || {} };
  facets = came.facets || {};
  without.value = asked.without;
  if (!came.opening) notice(line, "info", ""); // a message shown while the page opened stays
  drawPicture();
  drawFilters();
  drawRow();
  drawAdding(came);
};
