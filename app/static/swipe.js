// Swiping with a finger: right for a hit, left for a miss. Up and down stay the browser's (`touch-action: pan-y`).
const SWIPE = 70; // pixels from which a movement is meant

const swipes = (node, judgeIt) => {
  let start = null;
  const moveTo = (shift) => { node.style.transform = shift ? `translateX(${shift}px) rotate(${shift / 40}deg)` : ""; };
  node.classList.add("up-swipes");
  node.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "touch" || event.target.closest("button, a")) return;
    start = { x: event.clientX, y: event.clientY };
  });
  node.addEventListener("pointermove", (event) => {
    if (!start) return;
    const [across, down] = [event.clientX - start.x, event.clientY - start.y];
    moveTo(Math.abs(across) > Math.abs(down) ? across : 0);
    node.dataset.swipe = Math.abs(across) < SWIPE || Math.abs(across) < 2 * Math.abs(down) ? "" : across > 0 ? "hit" : "miss";
  });
  const end = (event) => {
    const verdict = start && event.type === "pointerup" ? node.dataset.swipe : "";
    start = null;
    node.dataset.swipe = "";
    moveTo(0);
    if (verdict) judgeIt(verdict);
  };
  node.addEventListener("pointerup", end);
  node.addEventListener("pointercancel", end);
  return node;
};
