// The work that takes long, beside the page: windows through the model to cells, and their components.
import * as ort from "../runtime/ort.wasm.bundle.min.mjs";
import { components, statistics, visibleCells } from "./analysis.js";
import { columnsAt, toDegrees } from "./place.js";
import { BlendedRows, Frame, Shares } from "./windows.js";

const BATCH = 8; // windows at once
const BANDS = 7;
let session = null;

async function bytes(path) {
  const answer = await fetch(new URL(path, import.meta.url));
  if (!answer.ok) throw new Error(`${path}: ${answer.status}; the folder is not complete, export it again`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function openModel(file) {
  if (session) return;
  ort.env.wasm.numThreads = 1; // more need headers that a plain server does not send
  ort.env.wasm.wasmBinary = await bytes("../runtime/ort-wasm-simd-threaded.wasm");
  session = await ort.InferenceSession.create(await bytes(`../${file}`), { executionProviders: ["wasm"] });
}

/** Windows with a visible pixel, stripe by stripe: [{top, left, clear}, …] each. */
function plan(frame, shares) {
  const stripes = [];
  for (let stripe = 0; stripe <= frame.blocksDown; stripe++) {
    const { tops, lefts } = frame.windowsOf(stripe);
    const windows = tops.flatMap((top) => lefts.map((left) => {
      const clear = shares.ofWindow(top / frame.patch, left / frame.patch, frame.side);
      return { top, left, clear };
    }));
    stripes.push(windows.filter(({ clear }) => clear > 0));
  }
  return stripes;
}

function cut(pixels, frame, { top, left }, out, offset) {
  const { grid, window } = frame;
  for (let b = 0; b < BANDS; b++) {
    for (let r = 0; r < window; r++) {
      const y = top + r - frame.above;
      if (y < 0 || y >= grid.height) continue;
      for (let c = 0; c < window; c++) {
        const x = left + c - frame.left;
        if (x >= 0 && x < grid.width) out[offset + (b * window + r) * window + c] = pixels[(b * grid.height + y) * grid.width + x];
      }
    }
  }
}

async function vectorsOf(windows, pixels, frame, fields, when) {
  const { window } = frame;
  const [images, columns] = [new Int32Array(windows.length * BANDS * window * window), []];
  windows.forEach((one, at) => {
    cut(pixels, frame, one, images, at * BANDS * window * window);
    const place = frame.grid.zone ? toDegrees(...frame.centre(one.top, one.left), frame.grid.zone) : [NaN, NaN];
    columns.push(...columnsAt(fields, when, ...place));
  });
  const inputs = {
    pixels: new ort.Tensor("int32", images, [windows.length, BANDS, window, window]),
    metadata: new ort.Tensor("float32", Float32Array.from(columns), [windows.length, fields.length]),
  };
  const { embedding } = await session.run(inputs);
  return embedding.data;
}

async function embed({ model, grid, stride, cell, pixels, when }) {
  await openModel(model.program);
  const { window, patch, width } = model;
  const frame = new Frame(grid, { window, patch, stride, cell });
  const shares = new Shares(frame, pixels);
  const stripes = plan(frame, shares);
  const total = stripes.reduce((sum, windows) => sum + windows.length, 0);
  const blended = new BlendedRows(frame, width);
  const cells = new Float32Array(frame.rows * frame.columns * width).fill(NaN);
  let done = 0;
  for (const [stripe, windows] of stripes.entries()) {
    for (let start = 0; start < windows.length; start += BATCH) {
      const part = windows.slice(start, start + BATCH);
      const vectors = await vectorsOf(part, pixels, frame, model.fields, model.conditioned ? when : {});
      part.forEach(({ top, left, clear }, at) => {
        const row = top / patch - (stripe - 1) * frame.side;
        blended.add(row, left / patch, vectors, at * frame.side ** 2 * width, clear);
      });
      done += part.length;
      postMessage({ kind: "progress", done, total });
    }
    blended.finish(stripe - 1, shares, model.least_clear, cells);
  }
  const visible = visibleCells(cells, width);
  if (!visible.length) throw new Error("No cell is visible by half or more: fill, cloud or shadow everywhere.");
  const known = statistics(cells, width, visible);
  const found = components(cells, width, visible, known);
  const { rows, columns } = frame;
  postMessage(
    { kind: "done", windows: total, rows, columns, cell, width, origin: frame.cellOrigin, cells, statistics: known, ...found },
    [cells.buffer, found.scores.buffer],
  );
}

onmessage = async ({ data }) => {
  try {
    await embed(data);
  } catch (error) {
    postMessage({ kind: "failed", message: error.message });
  }
};
