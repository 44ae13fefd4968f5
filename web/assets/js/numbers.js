// Numbers of any scale as Collection-2 Level-2 digital numbers, 0 in every band where the ground is not seen.
const [SCALE, OFFSET] = [0.0000275, -0.2]; // reflectance = number * SCALE + OFFSET
const NO_REFLECTANCE = -OFFSET / SCALE;
const BELIEVABLE = 100; // size of a reflectance beyond which a float is none
const SCALES = { landsat: [SCALE, OFFSET], reflectance: [1, 0], tenthousand: [0.0001, 0] };
const HIDING_BITS = 0b11111; // of QA_PIXEL: fill, dilated cloud, cirrus, cloud, cloud shadow
export const BANDS = 7;

const isFloat = (band) => band instanceof Float32Array || band instanceof Float64Array;

/** Reflectance of a digital number. */
export const reflectance = (number) => number * SCALE + OFFSET;

/**
 * @param bands seven arrays of equal length, as stored.
 * @param declared {nodata: seven numbers or null, mask: 0 where hidden, or null, qa: QA_PIXEL or null}
 * @param kind a key of SCALES, or "auto".
 * @returns (7 * n) Uint16Array
 */
export function landsatNumbers(bands, declared, kind) {
  const count = bands[0].length;
  const hidden = declaredHidden(bands, declared);
  const chosen = kind === "auto" ? recognised(bands, hidden) : kind;
  const [factor, offset] = SCALES[chosen];
  const exact = chosen === "landsat" ? (value) => value : (value) => (value * factor + offset - OFFSET) / SCALE;
  const stored = chosen === "landsat" && !isFloat(bands[0]);
  const pixels = new Uint16Array(BANDS * count);
  for (let i = 0; i < count; i++) {
    if (hidden[i] || isFill(bands, i, stored, exact)) continue;
    for (let b = 0; b < BANDS; b++) {
      pixels[b * count + i] = Math.min(65535, Math.max(1, Math.round(exact(bands[b][i]))));
    }
  }
  return pixels;
}

function declaredHidden(bands, { nodata, mask, qa }) {
  const hidden = new Uint8Array(bands[0].length);
  for (let i = 0; i < hidden.length; i++) {
    const bits = qa ? qa[i] : 0;
    if ((mask && !mask[i]) || !(bits >= 0 && bits <= 65535) || (Math.trunc(bits) & HIDING_BITS) !== 0) hidden[i] = 1;
    for (let b = 0; b < BANDS && !hidden[i]; b++) {
      if (bands[b][i] === nodata[b] || Number.isNaN(bands[b][i])) hidden[i] = 1;
    }
  }
  return hidden;
}

function isFill(bands, i, stored, exact) {
  const first = bands[0][i];
  let alike = first <= 0;
  for (let b = 0; b < BANDS; b++) {
    const value = bands[b][i];
    const number = exact(value);
    if (stored ? value === 0 : !(number >= 0.5 && Math.abs(reflectance(number)) <= BELIEVABLE)) return true;
    alike &&= value === first;
  }
  return alike;
}

/** What the numbers must be; throws where they can be several things. */
function recognised(bands, hidden) {
  const shown = bands.map((band) => sample(band, hidden));
  if (!shown[0].length) throw new Error("Nothing of this part is visible: fill, cloud or shadow everywhere.");
  if (isFloat(bands[0])) {
    const sorted = shown.flatMap((values) => [...values]).sort((a, b) => a - b);
    const inner = [sorted[Math.floor(0.01 * sorted.length)], sorted[Math.floor(0.99 * (sorted.length - 1))]];
    if (Math.max(-inner[0], inner[1]) <= 2) return "reflectance";
  } else if (bands[0] instanceof Uint16Array) {
    const medians = shown.map((values) => values.sort((a, b) => a - b)[values.length >> 1]);
    if (Math.max(...medians) >= NO_REFLECTANCE) return "landsat";
  }
  throw new Error("It cannot be told how these numbers are scaled: choose it under “Numbers are”, and Embed again.");
}

/** Up to 20,000 values of visible pixels that are not 0. */
function sample(band, hidden) {
  const step = Math.max(1, Math.floor(band.length / 20000));
  const found = [];
  for (let i = 0; i < band.length; i += step) if (!hidden[i] && band[i] !== 0) found.push(band[i]);
  return found;
}
