// Mouse, touch and keyboard on the plot.
const surface = at("dots");
const pointers = new Map();
const REACH = { mouse: 10, pen: 14, touch: 26 };
const STILL = 6; // pixels a pointer may wander between down and up and still be a click
let travelled = 0;
let pinch = null;

const place = (event) => {
  const box = surface.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

function spread() {
  const [[ax, ay], [bx, by]] = [...pointers.values()];
  return { x: (ax + bx) / 2, y: (ay + by) / 2, size: Math.hypot(ax - bx, ay - by) };
}

surface.addEventListener("pointerdown", (event) => {
  surface.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, place(event));
  travelled = pointers.size > 1 ? Infinity : 0;
  pinch = pointers.size === 2 ? spread() : null;
  showTip(-1);
});

surface.addEventListener("pointermove", (event) => {
  const [x, y] = place(event);
  if (!pointers.has(event.pointerId)) {
    if (event.pointerType === "mouse") showTip(nearest(x, y, REACH.mouse), x, y);
    return;
  }
  const [was, wasY] = pointers.get(event.pointerId);
  pointers.set(event.pointerId, [x, y]);
  travelled += Math.hypot(x - was, y - wasY);
  if (pointers.size === 1) {
    if (travelled > STILL) moveBy(x - was, y - wasY);
  } else if (pointers.size === 2) {
    const now = spread();
    moveBy(now.x - pinch.x, now.y - pinch.y);
    if (pinch.size > 0) zoomAt(now.x, now.y, now.size / pinch.size);
    pinch = now;
  }
});

function release(event) {
  if (!pointers.delete(event.pointerId)) return;
  pinch = null;
  if (event.type === "pointerup" && travelled <= STILL) {
    const [x, y] = place(event);
    select(nearest(x, y, REACH[event.pointerType] ?? REACH.mouse));
  }
}
surface.addEventListener("pointerup", release);
surface.addEventListener("pointercancel", release);
surface.addEventListener("pointerleave", () => showTip(-1));
surface.addEventListener("dblclick", (event) => zoomAt(...place(event), 2));
surface.addEventListener("wheel", (event) => {
  event.preventDefault();
  const lines = event.deltaMode === 1 ? 16 : 1;
  zoomAt(...place(event), Math.exp(-Math.max(-240, Math.min(240, event.deltaY * lines)) * 0.002));
}, { passive: false });

const STEP = 60;
const middle = () => [camera.width / 2, camera.height / 2];
const KEYS = {
  ArrowLeft: () => moveBy(STEP, 0),
  ArrowRight: () => moveBy(-STEP, 0),
  ArrowUp: () => moveBy(0, STEP),
  ArrowDown: () => moveBy(0, -STEP),
  "+": () => zoomAt(...middle(), 1.5),
  "=": () => zoomAt(...middle(), 1.5),
  "-": () => zoomAt(...middle(), 1 / 1.5),
  0: showAll,
  Enter: () => select(nearest(...middle(), Math.max(camera.width, camera.height))),
};
surface.addEventListener("keydown", (event) => {
  const action = KEYS[event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  action();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && selected >= 0) select(-1);
});
