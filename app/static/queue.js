// Marks on their way to the server. There is one queue for the whole page, so they arrive in the order they were made.
// When the server does not answer, they wait and the page says so; the server counts each `op` once, however often it
// is sent.
const LATE = 20_000; // milliseconds after which a request without an answer is sent again
const PAUSES = [300, 600, 1200, 2500, 5000];

const makeQueue = () => {
  const waiting = [];
  let running = false;
  let failures = 0;
  let wake = null;
  const words = el("span", { class: "up-notice-text" });
  const sign = el("div", { class: "up-lost up-notice up-notice-error", role: "alert", popover: "manual" }, icon("alert"), words,
    button("back", "Try now", () => wake?.()));
  document.body.append(sign);
  window.addEventListener("online", () => wake?.());
  window.addEventListener("beforeunload", (event) => { if (waiting.length) event.preventDefault(); });

  const draw = () => {
    sign.togglePopover(failures > 0); // above an open dialog, too
    words.textContent = `The server does not answer. ${plural(waiting.length, "action")} wait here, in order, and are sent as soon as it is back. Go on marking.`;
  };
  const pause = () => new Promise((resolve) => {
    const timer = setTimeout(resolve, PAUSES[Math.min(failures, PAUSES.length) - 1]);
    wake = () => { clearTimeout(timer); resolve(); };
  });
  const late = () => new Promise((_, reject) => { setTimeout(() => reject(Object.assign(new Error("no answer"), { lost: true })), LATE); });

  const settle = (entry, name, value) => {
    waiting.shift();
    failures = 0;
    draw();
    entry[name](value);
  };
  const pump = async () => {
    if (running) return;
    running = true;
    while (waiting.length) {
      const entry = waiting[0];
      entry.sent = true;
      try {
        const reply = await Promise.race([entry.request(), late()]);
        settle(entry, "done", reply);
      } catch (error) {
        if (error.lost) {
          failures += 1;
          draw();
          await pause();
        } else settle(entry, "refused", error);
      }
    }
    running = false;
  };

  return {
    // `done` takes the answer, `refused` the error; neither may throw. Returns the entry, for `drop`.
    add: (request, done, refused) => {
      const entry = { request, done, refused, sent: false };
      waiting.push(entry);
      if (failures) draw();
      pump();
      return entry;
    },
    // Take an entry out again that was not sent yet; whether it was.
    drop: (entry) => {
      const index = waiting.indexOf(entry);
      if (index < 0 || entry.sent) return false;
      waiting.splice(index, 1);
      draw();
      return true;
    },
    length: () => waiting.length,
  };
};

const queue = (window.upQueue ??= makeQueue());
const newOp = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(16)).join("");
