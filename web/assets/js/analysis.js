// What is derived from cells: statistics, principal components, similarity, land cover. A cell is `width` numbers.
const SHOWN = 3;
const GUARDS = 4; // directions beside those wanted, which make the iteration converge faster
const MOST_STEPS = 300;

/** Indices of the cells that are visible. */
export function visibleCells(cells, width) {
  const found = [];
  for (let i = 0; i * width < cells.length; i++) if (!Number.isNaN(cells[i * width])) found.push(i);
  return found;
}

/** Mean and standard deviation (1 where a number never changes) of the visible cells. */
export function statistics(cells, width, visible) {
  const [mean, std] = [new Float64Array(width), new Float64Array(width)];
  for (const i of visible) for (let k = 0; k < width; k++) mean[k] += cells[i * width + k] / visible.length;
  for (const i of visible) for (let k = 0; k < width; k++) std[k] += (cells[i * width + k] - mean[k]) ** 2 / visible.length;
  const total = std.reduce((sum, value) => sum + value, 0);
  return { mean, std: std.map((variance) => (variance > 0 ? Math.sqrt(variance) : 1)), total };
}

/**
 * The first three principal components of the visible cells, by subspace iteration.
 * @returns {scores: (cells * 3), NaN where hidden, explained: share of the variance}
 */
export function components(cells, width, visible, { mean, total }) {
  const centred = new Float64Array(visible.length * width);
  visible.forEach((i, row) => {
    for (let k = 0; k < width; k++) centred[row * width + k] = cells[i * width + k] - mean[k];
  });
  const count = Math.min(SHOWN + GUARDS, width);
  let axes = orthonormal(Array.from({ length: count }, (_, j) => Float64Array.from({ length: width }, (_, k) => Math.sin(1 + k * (j + 1) + j))));
  let [lengths, before] = [[], Infinity];
  for (let step = 0; step < MOST_STEPS; step++) {
    const images = axes.map((axis) => covarianceTimes(centred, width, axis));
    lengths = images.map((image) => Math.hypot(...image));
    axes = orthonormal(images);
    const now = lengths.slice(0, SHOWN).reduce((sum, value) => sum + value, 0);
    if (Math.abs(now - before) <= 1e-10 * now) break;
    before = now;
  }
  axes = axes.slice(0, SHOWN).map(signed);
  const scores = new Float32Array((cells.length / width) * SHOWN).fill(NaN);
  let explained = 0;
  visible.forEach((i, row) => {
    axes.forEach((axis, j) => {
      const score = dot(centred, row * width, axis);
      scores[i * SHOWN + j] = score;
      explained += score ** 2 / visible.length;
    });
  });
  return { scores, explained: explained / Math.max(total, 1e-12) };
}

function dot(values, offset, axis) {
  let sum = 0;
  for (let k = 0; k < axis.length; k++) sum += values[offset + k] * axis[k];
  return sum;
}

function covarianceTimes(centred, width, axis) {
  const image = new Float64Array(width);
  for (let offset = 0; offset < centred.length; offset += width) {
    const score = dot(centred, offset, axis);
    for (let k = 0; k < width; k++) image[k] += score * centred[offset + k];
  }
  return image;
}

/** Gram and Schmidt, in place; what is dependent becomes 0. */
function orthonormal(vectors) {
  vectors.forEach((vector, j) => {
    for (let pass = 0; pass < 2; pass++) { // the second pass removes what rounding left
      for (const other of vectors.slice(0, j)) {
        const share = dot(vector, 0, other);
        for (let k = 0; k < vector.length; k++) vector[k] -= share * other[k];
      }
    }
    const length = Math.sqrt(dot(vector, 0, vector));
    for (let k = 0; k < vector.length; k++) vector[k] = length > 1e-12 ? vector[k] / length : 0;
  });
  return vectors;
}

/** The direction whose strongest number is positive. */
function signed(axis) {
  const strongest = axis.reduce((best, value) => (Math.abs(value) > Math.abs(best) ? value : best), 0);
  return strongest < 0 ? axis.map((value) => -value) : axis;
}

/** Cosine between each cell and one of them, both standardised over the scene; NaN where hidden. */
export function similarity(cells, width, index, { mean, std }) {
  const standard = (i, k) => (cells[i * width + k] - mean[k]) / std[k];
  const reference = Float64Array.from({ length: width }, (_, k) => standard(index, k));
  const length = Math.max(Math.hypot(...reference), 1e-12);
  return Float32Array.from({ length: cells.length / width }, (_, i) => {
    let [product, own] = [0, 0];
    for (let k = 0; k < width; k++) {
      const value = standard(i, k);
      product += value * reference[k];
      own += value * value;
    }
    return product / (length * Math.max(Math.sqrt(own), 1e-12));
  });
}

/** A linear probe on every cell: {best: class index, 255 where hidden, chances: (cells * classes of the probe)}. */
export function landCover(cells, width, probe) {
  const count = cells.length / width;
  const classes = probe.columns.length;
  const best = new Uint8Array(count).fill(255);
  const chances = new Float32Array(count * classes).fill(NaN);
  for (let i = 0; i < count; i++) {
    if (Number.isNaN(cells[i * width])) continue;
    const logits = probe.intercept.map((start, c) => {
      let sum = start;
      for (let k = 0; k < width; k++) sum += probe.coef[c][k] * ((cells[i * width + k] - probe.mean[k]) / probe.scale[k]);
      return sum;
    });
    chances.set(probabilities(logits, probe.multilabel), i * classes);
    best[i] = probe.columns[logits.indexOf(Math.max(...logits))];
  }
  return { best, chances };
}

function probabilities(logits, multilabel) {
  if (multilabel) return logits.map((value) => 1 / (1 + Math.exp(-value)));
  const largest = Math.max(...logits);
  const shares = logits.map((value) => Math.exp(value - largest));
  const total = shares.reduce((sum, value) => sum + value, 0);
  return shares.map((value) => value / total);
}
