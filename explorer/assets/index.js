// Patches by square of the plane, for the one under the pointer.
const SQUARES = 128;

function squaresOf(one) {
  if (one.starts) return one;
  const square = (i) => Math.floor((one.xy[2 * i + 1] * SQUARES) / (GRID + 1)) * SQUARES +
    Math.floor((one.xy[2 * i] * SQUARES) / (GRID + 1));
  one.starts = new Uint32Array(SQUARES * SQUARES + 1);
  for (let i = 0; i < count; i++) one.starts[square(i) + 1]++;
  for (let k = 0; k < SQUARES * SQUARES; k++) one.starts[k + 1] += one.starts[k];
  one.items = new Uint32Array(count);
  const next = one.starts.slice();
  for (let i = 0; i < count; i++) one.items[next[square(i)]++] = i;
  return one;
}

const squareOf = (value) => Math.min(Math.max(Math.floor((value * SQUARES) / (GRID + 1)), 0), SQUARES - 1);

// The shown patch nearest to a pixel of the page, -1 where none is within `reach` pixels.
function nearest(x, y, reach) {
  const { starts, items, xy } = squaresOf(view);
  const [px, py, r] = [fromX(x), fromY(y), reach / camera.scale];
  let best = -1;
  let least = r * r;
  for (let row = squareOf(py - r); row <= squareOf(py + r); row++) {
    const from = starts[row * SQUARES + squareOf(px - r)];
    const to = starts[row * SQUARES + squareOf(px + r) + 1];
    for (let k = from; k < to; k++) {
      const i = items[k];
      const distance = (xy[2 * i] - px) ** 2 + (xy[2 * i + 1] - py) ** 2;
      if (distance <= least && shown(i)) [best, least] = [i, distance];
    }
  }
  return best;
}
