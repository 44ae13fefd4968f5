// Dots on one canvas; what is pointed at, selected and near on a second one above it.
const [USUAL, DIMMED] = [0.8, 0.12]; // opacity
const LEAST_RIMMED = 7; // pixels of a dot that has room for a rim
const MOST_TILES = 350; // fewer patches in sight than this are drawn as pictures
const dots = at("dots").getContext("2d", { willReadFrequently: true }); // kept in memory, where pixels are painted
const marks = at("marks").getContext("2d");
let tileSide = 0; // of the pictures drawn, 0 while they are dots
let emphasised = -1; // a group pointed at in the legend
let hovered = -1;
let selected = -1;
let waiting = 0;
const timing = { last: 0, frames: 0 };

function redraw() {
  if (!waiting) waiting = requestAnimationFrame(drawAll);
}

function drawAll() {
  waiting = 0;
  const start = performance.now();
  drawDots();
  drawMarks();
  timing.last = performance.now() - start;
  timing.frames++;
}

const radius = () => {
  const zoom = camera.scale / fitting();
  const room = Math.min(Math.max(Math.min(camera.width, camera.height) / 700, 0.7), 1.3);
  const base = room * (1.2 + 90 / Math.sqrt(count));
  return Math.min(base * Math.sqrt(Math.sqrt(Math.max(zoom, 1))), 9);
};

function inSight() {
  const [left, right] = [fromX(0), fromX(camera.width)];
  const [low, high] = [fromY(camera.height), fromY(0)];
  const found = [];
  for (let i = 0; i < count && found.length <= MOST_TILES; i++) {
    const [x, y] = [view.xy[2 * i], view.xy[2 * i + 1]];
    if (x >= left && x <= right && y >= low && y <= high && shown(i)) found.push(i);
  }
  return found;
}

function drawDots() {
  const { width, height } = dots.canvas;
  dots.setTransform(1, 0, 0, 1, 0, 0);
  dots.clearRect(0, 0, width, height);
  tileSide = 0;
  const close = meta.sheets && camera.scale > 2 * fitting() ? inSight() : null;
  if (close && close.length <= MOST_TILES) return drawTiles(close);
  const size = Math.max(2, Math.round(2 * radius() * camera.dpr));
  const scale = camera.scale * camera.dpr;
  const left = width / 2 - camera.x * scale - size / 2;
  const top = height / 2 + camera.y * scale - size / 2;
  const order = emphasised < 0 ? mode.order : [...mode.order.filter((g) => g !== emphasised), emphasised];
  clearPaper(dots, getComputedStyle(document.body).backgroundColor);
  for (const group of order) {
    if (mode.hidden[group]) continue;
    const opacity = emphasised < 0 ? USUAL : group === emphasised ? 1 : DIMMED;
    const [members, colour] = [mode.members[group], mode.colours[group]];
    const rim = size < LEAST_RIMMED ? 0 : Math.max(1, Math.round(camera.dpr)); // pale colours stand out from the paper
    paint(members, view.xy, left, top, scale, size, colour, opacity);
    if (rim) paint(members, view.xy, left, top, scale, size, darker(colour), opacity, size / 2 - rim);
  }
  dots.putImageData(paper.image, 0, 0);
  return null;
}

function drawTiles(close) {
  dots.setTransform(camera.dpr, 0, 0, camera.dpr, 0, 0);
  dots.imageSmoothingEnabled = false;
  const room = Math.sqrt((camera.width * camera.height) / Math.max(close.length, 1));
  const side = Math.round(Math.min(Math.max(0.6 * room, 22), 64));
  tileSide = side;
  dots.lineWidth = 2;
  for (const i of close) {
    const [x, y] = [Math.round(toX(i) - side / 2), Math.round(toY(i) - side / 2)];
    dots.globalAlpha = emphasised < 0 || mode.of[i] === emphasised ? 1 : DIMMED;
    dots.fillStyle = dots.strokeStyle = colourOf(i);
    if (!drawPicture(dots, i, x, y, side)) dots.fillRect(x, y, side, side);
    dots.strokeRect(x - 1, y - 1, side + 2, side + 2);
  }
  dots.globalAlpha = 1;
}

function ring(i, r, width, colour) {
  marks.lineWidth = width;
  marks.strokeStyle = colour;
  marks.beginPath();
  marks.arc(toX(i), toY(i), r, 0, 2 * Math.PI);
  marks.stroke();
}

function drawMarks() {
  marks.setTransform(camera.dpr, 0, 0, camera.dpr, 0, 0);
  marks.clearRect(0, 0, camera.width, camera.height);
  const ink = getComputedStyle(document.body).color;
  const r = tileSide ? 0.75 * tileSide : radius() + 3;
  if (selected >= 0) {
    marks.lineWidth = 1;
    marks.strokeStyle = ink;
    for (const other of neighboursOf(selected)) {
      marks.globalAlpha = 0.5;
      marks.beginPath();
      marks.moveTo(toX(selected), toY(selected));
      marks.lineTo(toX(other), toY(other));
      marks.stroke();
      marks.globalAlpha = 1;
      ring(other, r, 1.5, ink);
    }
    ring(selected, r + 3, 3, ink);
  }
  if (hovered >= 0) ring(hovered, r + 1, 2, ink);
}
