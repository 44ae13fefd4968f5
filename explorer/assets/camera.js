// From positions (0 to 65,535 in both directions, y upwards) to pixels of the page.
const GRID = 65535;
const MOST_ZOOM = 400;
const MOST_DPR = 2; // finer screens gain nothing that an eye sees on a dot
let view = views[0];
const camera = { x: GRID / 2, y: GRID / 2, scale: 1, width: 1, height: 1, dpr: 1 };

const fitting = () => (0.94 * Math.min(camera.width, camera.height)) / GRID;
const toX = (i) => camera.width / 2 + (view.xy[2 * i] - camera.x) * camera.scale;
const toY = (i) => camera.height / 2 - (view.xy[2 * i + 1] - camera.y) * camera.scale;
const fromX = (x) => camera.x + (x - camera.width / 2) / camera.scale;
const fromY = (y) => camera.y - (y - camera.height / 2) / camera.scale;

function keepNear() {
  camera.scale = Math.min(Math.max(camera.scale, 0.5 * fitting()), MOST_ZOOM * fitting());
  camera.x = Math.min(Math.max(camera.x, 0), GRID);
  camera.y = Math.min(Math.max(camera.y, 0), GRID);
  redraw();
}

function zoomAt(x, y, factor) {
  const [px, py] = [fromX(x), fromY(y)];
  camera.scale = Math.min(Math.max(camera.scale * factor, 0.5 * fitting()), MOST_ZOOM * fitting());
  camera.x = px - (x - camera.width / 2) / camera.scale;
  camera.y = py + (y - camera.height / 2) / camera.scale;
  keepNear();
}

function moveBy(dx, dy) {
  camera.x -= dx / camera.scale;
  camera.y += dy / camera.scale;
  keepNear();
}

function showAll() {
  Object.assign(camera, { x: GRID / 2, y: GRID / 2, scale: fitting() });
  keepNear();
}

// Brings a patch into the middle unless it is well inside already.
function bringInto(i) {
  const [x, y] = [toX(i), toY(i)];
  const margin = 60;
  if (x > margin && y > margin && x < camera.width - margin && y < camera.height - margin) return redraw();
  [camera.x, camera.y] = view.xy.subarray(2 * i, 2 * i + 2);
  return keepNear();
}

function resize() {
  const box = at("plot").getBoundingClientRect();
  const first = camera.width === 1;
  const whole = Math.abs(camera.scale / fitting() - 1) < 1e-6;
  Object.assign(camera, { width: box.width, height: box.height, dpr: Math.min(window.devicePixelRatio || 1, MOST_DPR) });
  for (const canvas of [at("dots"), at("marks")]) {
    canvas.width = Math.round(box.width * camera.dpr);
    canvas.height = Math.round(box.height * camera.dpr);
  }
  if (first || whole) showAll();
  else keepNear();
}
