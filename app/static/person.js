// One person: all pictures by camera and time. `props.value` is what app/pages/person_page.py calls a person.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const [line, place] = ["line", "person"].map(part);

const tile = ({ image_id: image, captured_at: taken }, camera, number) => el("li", {},
  el("a", { class: "up-person-picture", href: `?like=${image}`, title: "Search for pictures like this one", "aria-label": [`Picture ${number + 1}`, camera, taken && whenTaken(taken), "search for pictures like it"].filter(Boolean).join(", ") },
    el("img", { src: pictureUrl(image, "thumb"), alt: "", loading: "lazy" }), el("span", { class: "up-fine" }, taken ? whenTaken(taken) : "time not known")));

const section = ({ camera, pictures }) => el("section", { class: "up-person-camera", "aria-label": camera || "Camera not known" },
  el("h3", {}, camera || "Camera not known", el("span", { class: "up-fine" }, ` ${plural(pictures.length, "picture")}`)),
  el("ol", { class: "up-person-pictures" }, ...pictures.map((picture, number) => tile(picture, camera, number))));

const draw = () => {
  const person = props.value || {};
  notice(line, "error", person.state === "error" ? person.message : "");
  if (person.state !== "person") { place.replaceChildren(); return; }
  if (!person.count) {
    place.replaceChildren(el("div", { class: "up-empty" }, icon("picture"), el("h2", {}, person.title),
      el("p", {}, person.pid ? "No picture in this gallery has this pid." : "This description has no hit yet: mark hits on the Search page, and all pictures of the person gather here.")));
    return;
  }
  const others = person.captions.filter((caption) => `“${caption}”` !== person.title);
  place.replaceChildren(
    el("div", { class: "up-section-head" }, el("h2", {}, person.pid ? `Person ${person.title}` : person.title),
      person.pid ? el("a", { class: "up-button", href: `?${new URLSearchParams({ pid: person.pid })}` }, icon("search"), el("span", {}, "Search within")) : null),
    el("p", { class: "up-purpose" }, [`${plural(person.count, "picture")} by ${plural(person.cameras.length, "camera")}.`,
      person.pid ? "" : "They are joined by hits, and by pids where they have some.",
      others.length ? `Also described as ${others.slice(0, 3).map((caption) => `“${caption}”`).join(", ")}.` : "",
      person.left_out ? `${person.left_out.toLocaleString("en")} more are not listed.` : ""].filter(Boolean).join(" ")),
    ...person.cameras.map(section));
};

watch("value", draw);
draw();
