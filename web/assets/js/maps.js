// Numbers to pictures: one canvas pixel a pixel of the scene, or a cell; transparent where the ground is not seen.
import { reflectance } from "./numbers.js";

const TRUE_COLOUR = [3, 2, 1]; // red, green and blue among the bands
const LEAST_SPAN = 0.06; // of reflectance between black and white
const STRETCH = [0.02, 0.98];
// Cividis (Nuñez, Anderton and Renslow 2018): alike for people with and without red-green colour blindness.
export const RAMP = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
const STEPS = RAMP.map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));

function picture(width, height, colour) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const found = colour(i);
    if (found) image.data.set([...found, 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function limits(values) {
  const sorted = Float64Array.from(values).sort();
  return STRETCH.map((share) => sorted[Math.round(share * (sorted.length - 1))] ?? 0);
}

/** (7 * n) digital numbers in true colour. */
export function trueColour(pixels, width, height) {
  const count = width * height;
  const bands = TRUE_COLOUR.map((b) => pixels.subarray(b * count, (b + 1) * count));
  const [low, high] = limits(bands.flatMap((band) => [...band.filter((number) => number)])).map(reflectance);
  const span = Math.max(high - low, LEAST_SPAN) / 255;
  return picture(width, height, (i) => bands[0][i] && bands.map((band) => (reflectance(band[i]) - low) / span));
}

/** Three components a cell as red, green and blue. */
export function componentMap({ scores, columns, rows }) {
  const ranges = [0, 1, 2].map((j) => limits(scores.filter((value, at) => at % 3 === j && !Number.isNaN(value))));
  return picture(columns, rows, (i) => !Number.isNaN(scores[3 * i]) &&
    ranges.map(([low, high], j) => (255 * (scores[3 * i + j] - low)) / Math.max(high - low, 1e-6)));
}

/** Cosines from -1 to 1. */
export function similarityMap(values, { columns, rows }) {
  return picture(columns, rows, (i) => !Number.isNaN(values[i]) && rampColour((values[i] + 1) / 2));
}

function rampColour(share) {
  const at = Math.min(Math.max(share, 0), 1) * (STEPS.length - 1);
  const [low, part] = [Math.min(Math.floor(at), STEPS.length - 2), at - Math.min(Math.floor(at), STEPS.length - 2)];
  return STEPS[low].map((value, k) => value + part * (STEPS[low + 1][k] - value));
}

/** Classes in their colours; where one is emphasised, the others fade. */
export function coverMap(best, colours, emphasised, { columns, rows }) {
  return picture(columns, rows, (i) => {
    if (best[i] === 255) return null;
    const colour = [1, 3, 5].map((at) => parseInt(colours[best[i]].slice(at, at + 2), 16));
    return emphasised === null || emphasised === best[i] ? colour : colour.map((value) => 255 - (255 - value) / 6);
  });
}
