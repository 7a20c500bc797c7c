// Adding pictures to the gallery, beside the query's tools: a dialog, the progress, and what was left out.

const ADDING_EVERY = 700;
const chosenFiles = el("input", { type: "file", multiple: true, accept: "image/*,.tif,.tiff,.zip,application/zip", class: "up-hidden", tabindex: -1, "aria-label": "Pictures or a zip to add",
  onchange: () => { add([...chosenFiles.files]); chosenFiles.value = ""; } });
const addingBody = el("div", { class: "up-adding", role: "status" });
const adder = dialog("Add pictures", chosenFiles, addingBody);
const adderButton = button("plus", "", () => openAdder(), { class: "up-button up-tool up-adder", "data-tool": "add", "aria-label": "Add pictures", "aria-haspopup": "dialog" });
adderButton.querySelector("span").append("Add", el("span", { class: "up-long" }, " pictures"));
foot.append(adderButton);
let adding = false; // something is on its way, or being indexed

let sampleHidden = false;
const drawAdding = (came) => { adderButton.hidden = !came.may_add; sampleHidden = Boolean(came.sample_hidden); };

const openAdder = async () => {
  drawer.close();
  if (!adding) drawStart();
  adder.showModal();
  if (!adding) await follow(); // perhaps an earlier visit of this page began something
};

// The sample gallery comes back beside what was added: it is drawn once more where it is gone.
const showSample = async () => {
  adding = true;
  drawProgress("Bringing the sample gallery back", null);
  try {
    const reply = await ask("sample", {});
    sampleHidden = false;
    [facets, adding] = [reply.facets, false];
    drawFilters();
    drawRow();
    document.dispatchEvent(new CustomEvent("up-added", { detail: reply.pictures }));
    adder.close();
  } catch (error) {
    adding = false;
    drawStart(error.message);
  }
};

const drawStart = (fault = "") => {
  const target = el("div", { class: "up-drop", ondragover: (event) => event.preventDefault(),
    ondrop: (event) => { event.preventDefault(); add([...event.dataTransfer.files]); } },
    button("plus", "Choose pictures or a zip", () => chosenFiles.click(), { class: "up-button up-primary", "data-act": "choose-files" }),
    el("p", { class: "up-fine" }, "or drop them here. One picture should show one person."));
  addingBody.replaceChildren(fault ? el("p", { class: "up-notice up-notice-error" }, icon("alert"), el("span", { class: "up-notice-text" }, fault)) : "", target,
    el("p", { class: "up-fine" }, "The same picture twice is one, and files that cannot be read are listed and left out."),
    el("p", { class: "up-sample-note" }, sampleHidden ? "The sample gallery stepped aside for your pictures: no search shows it." : "The sample gallery, if it is still shown, steps aside for pictures of your own: no search shows it then. It comes back here by a click."),
    sampleHidden ? button("back", "Show the sample gallery again", showSample, { "data-act": "sample" }) : "");
};

const drawProgress = (stage, fraction) => {
  const bar = el("progress", { class: "up-progress", max: 1, "aria-label": stage });
  if (fraction !== null) bar.value = fraction;
  addingBody.replaceChildren(el("div", { class: "up-run-head" }, el("span", {}, stage), el("span", {}, fraction === null ? "" : `${Math.round(100 * fraction)} %`)), bar,
    el("p", { class: "up-fine" }, "You can close this and search on: it goes on by itself."));
};

const drawReport = ({ added, known, left_out: leftOut, skipped, notes }) => {
  const facts = [["Added", added], ["There already", known], ["Left out", leftOut]];
  const more = leftOut - skipped.length;
  addingBody.replaceChildren(
    el("dl", { class: "up-tiles" }, ...facts.map(([term, count]) => el("div", { class: "up-tile" }, el("dt", {}, term), el("dd", {}, el("b", {}, count.toLocaleString("en")))))),
    ...notes.map((text) => el("p", { class: "up-fine" }, text)),
    skipped.length ? el("div", { class: "up-skipped", tabindex: 0, role: "region", "aria-label": "Files left out" }, el("ul", {}, ...skipped.map(({ path, reason }) =>
      el("li", {}, el("b", {}, path), ` ${reason}`)))) : "",
    more > 0 ? el("p", { class: "up-fine" }, `and ${more.toLocaleString("en")} more.`) : "",
    el("div", { class: "up-dialog-foot" },
      button("plus", "Add more", () => { drawStart(); addingBody.querySelector("button").focus(); }, { "data-act": "again" }),
      button(null, "Done", () => adder.close(), { class: "up-button up-primary", "data-act": "done" })));
};

const add = async (files) => {
  if (!files.length || adding) return;
  adding = true;
  try {
    const sent = [];
    for (const [number, one] of files.entries()) {
      drawProgress(`Sending ${number + 1} of ${plural(files.length, "file")}`, number / files.length);
      if (one.size > MOST_BYTES) throw new Error(`“${one.name}” has more than 50 MB, which is what the page takes: split it, or index it on the server with “python app.py index”.`);
      sent.push({ path: (await upload(one).catch(() => { throw new Error(`“${one.name}” could not be sent: check that the app still runs, then try again.`); })).path, name: one.name });
    }
    drawProgress("Starting", null);
    await ask("add", { files: sent });
  } catch (error) {
    drawStart(error.message);
    adding = false;
    return;
  }
  await follow();
};

const follow = async () => {
  for (;;) {
    let reply;
    try {
      reply = await ask("adding", {});
    } catch (error) {
      drawStart(error.message);
      break;
    }
    if (reply.state === "none") break;
    if (reply.state === "running") {
      adding = true;
      drawProgress(reply.stage, reply.total ? reply.done / reply.total : null);
      await new Promise((resolve) => setTimeout(resolve, ADDING_EVERY));
      if (element.isConnected) continue;
      break;
    }
    if (reply.state === "failed") drawStart(reply.message);
    else {
      drawReport(reply.report);
      if (reply.report.added) document.dispatchEvent(new CustomEvent("up-added", { detail: reply.report.added }));
      [facets, sampleHidden] = [reply.facets, reply.sample_hidden];
      drawFilters();
      drawRow();
    }
    break;
  }
  adding = false;
};

watch("value", redraw);
redraw();
