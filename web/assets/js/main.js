// The page: what is chosen, what is being done, what is shown.
import { landCover, similarity } from "./analysis.js";
import { embed, stop } from "./embedder.js";
import { openScene, readPart } from "./files.js";
import { componentLegend, coverLegend, facts, similarityLegend } from "./legend.js";
import { componentMap, coverMap, similarityMap, trueColour } from "./maps.js";
import { npy } from "./npy.js";
import { landsatNumbers } from "./numbers.js";
import { listen, MapView } from "./view.js";

const WHOLE = 600; // pixels along a side up to which all of a scene is embedded unless asked otherwise
const PART = 400; // else so many, in its middle
const MOST_BYTES = 400e6; // of cells
const at = (id) => document.getElementById(id);
const shown = () => document.querySelector("input[name=shown]:checked").value;
const views = { scene: new MapView(at("scene-map")), cells: new MapView(at("cell-map")) };
const state = { scene: null, part: null, pixels: null, picture: null, result: null, selected: null, cover: null, emphasised: null };
window.page = state;

const model = await (await fetch("model.json")).json();
const probe = model.probe ? await (await fetch(model.probe)).json() : null;

function say(problem) {
  at("problem").textContent = problem;
  at("problem").hidden = !problem;
}

/** Run what a user asked for; what goes wrong is said in a line. */
async function attempt(work) {
  say("");
  try {
    await work();
  } catch (error) {
    say(error.message);
  }
}

async function take(files) {
  state.scene = null;
  at("settings").hidden = true;
  const scene = await openScene(files);
  stop();
  Object.assign(state, { scene, result: null, selected: null, cover: null });
  const { width, height } = scene.grid;
  const side = Math.max(width, height) <= WHOLE ? Math.max(width, height) : PART;
  at("top").value = Math.max(0, (height - side) >> 1);
  at("left").value = Math.max(0, (width - side) >> 1);
  at("side").value = side;
  at("part").hidden = Math.max(width, height) <= WHOLE;
  at("date").value = scene.when.day;
  at("time").value = scene.when.clock.slice(0, 5);
  at("scene").textContent = `${scene.name}: ${height.toLocaleString("en")} × ${width.toLocaleString("en")} pixels`;
  at("notes").replaceChildren(...scene.notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
  at("settings").hidden = false;
  await look();
}

/** Read the chosen part and show it in true colour. */
async function look() {
  const { grid } = state.scene;
  const [top, left, side] = ["top", "left", "side"].map((id) => Math.max(0, Math.floor(Number(at(id).value))));
  const part = { top, left, height: Math.min(side, grid.height - top), width: Math.min(side, grid.width - left) };
  if (!(part.height > 0 && part.width > 0)) throw new Error("This part lies outside the scene.");
  const { bands, declared } = await readPart(state.scene, part);
  const pixels = landsatNumbers(bands, declared, at("kind").value);
  Object.assign(state, { part, pixels, result: null, selected: null, cover: null });
  const extent = [part.width, part.height];
  at("empty").hidden = true;
  at("scene-figure").hidden = false;
  at("cell-figure").hidden = at("selected").hidden = at("save").hidden = true;
  views.scene.mark = views.cells.mark = null;
  state.picture = trueColour(pixels, ...extent);
  views.scene.show(state.picture, { left: 0, top: 0, width: part.width, height: part.height }, state.picture, extent);
  const km = (pixels) => ((pixels * 30) / 1000).toFixed(1);
  at("scene-caption").textContent = `True colour, ${km(part.width)} × ${km(part.height)} km`;
}

async function run() {
  await look();
  const { scene, part, pixels } = state;
  const [stride, cell] = [Number(at("stride").value), Number(at("cell").value)];
  const needed = (Math.ceil(part.width / cell) + 1) * (Math.ceil(part.height / cell) + 1) * model.width * 4;
  if (needed > MOST_BYTES) throw new Error("So many cells do not fit into memory: choose larger cells or a smaller part.");
  const { x, y, zone } = scene.grid;
  const grid = { width: part.width, height: part.height, zone, x: x === null ? null : x + 30 * part.left, y: y === null ? null : y - 30 * part.top };
  const own = at("time").value === scene.when.clock.slice(0, 5) ? scene.when.clock : at("time").value;
  const same = own === scene.when.clock && at("date").value === scene.when.day;
  const when = { day: at("date").value, clock: own, sun: same ? scene.when.sun : NaN };
  busy(true);
  const started = performance.now();
  try {
    const request = { model, grid, stride, cell, pixels, when };
    const result = await embed(request, (done, total) => {
      at("progress").value = done / total;
      const left = ((performance.now() - started) / 1000) * (total / done - 1);
      at("doing").textContent = `${done} of ${total} windows, ${Math.ceil(left)} s left`;
    });
    if (!result) return void (at("doing").textContent = "stopped");
    const seconds = (performance.now() - started) / 1000;
    at("doing").textContent = `${result.windows} windows in ${seconds.toFixed(1)} s, ${result.rows} × ${result.columns} cells of ${cell * 30} m`;
    finish(result);
  } finally {
    busy(false);
  }
}

function busy(now) {
  at("embed").disabled = now;
  at("cancel").hidden = at("progress").hidden = !now;
  if (now) {
    at("progress").removeAttribute("value");
    at("doing").textContent = "loading the model";
  }
}

function finish(result) {
  state.result = result;
  state.cover = probe ? landCover(result.cells, result.width, probe) : null;
  at("cell-figure").hidden = at("save").hidden = false;
  at("cover-choice").hidden = !probe;
  show();
}

function show() {
  const { result, selected, cover, emphasised } = state;
  if (!result) return;
  const chosen = shown();
  const legend = at("legend");
  let picture;
  if (chosen === "similarity") {
    if (!selected || hiddenAt(...selected)) return choose(...firstVisible());
    picture = similarityMap(similarity(result.cells, result.width, selected[0] * result.columns + selected[1], result.statistics), result);
    similarityLegend(legend);
  } else if (chosen === "cover") {
    picture = coverMap(cover.best, probe.colours, emphasised, result);
    coverLegend(legend, cover.best, probe, emphasised, (index) => {
      state.emphasised = index;
      show();
    });
  } else {
    picture = componentMap(result);
    componentLegend(legend, result.explained);
  }
  const { rows, columns, cell, origin } = result;
  const extent = [state.part.width, state.part.height];
  views.cells.show(picture, { ...origin, width: columns * cell, height: rows * cell }, state.picture, extent);
}

const hiddenAt = (row, column) => Number.isNaN(state.result.cells[(row * state.result.columns + column) * state.result.width]);

/** The visible cell nearest to the middle. */
function firstVisible() {
  const { rows, columns } = state.result;
  const all = Array.from({ length: rows * columns }, (_, i) => [Math.floor(i / columns), i % columns]);
  const away = ([row, column]) => (row - rows / 2) ** 2 + (column - columns / 2) ** 2;
  return all.filter((one) => !hiddenAt(...one)).sort((a, b) => away(a) - away(b))[0];
}

function choose(row, column) {
  const { result } = state;
  row = Math.min(Math.max(row, 0), result.rows - 1);
  column = Math.min(Math.max(column, 0), result.columns - 1);
  state.selected = [row, column];
  const mark = { left: result.origin.left + column * result.cell, top: result.origin.top + row * result.cell, side: result.cell };
  views.scene.mark = views.cells.mark = mark;
  views.scene.draw();
  at("selected").hidden = false;
  facts(at("facts"), { ...state, probe });
  if (shown() === "similarity" && hiddenAt(row, column)) views.cells.draw();
  else show();
}

function save() {
  const { cells, rows, columns, width } = state.result;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(npy(cells, [rows, columns, width]));
  link.download = `${state.scene.name}_embeddings.npy`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function start() {
  at("model").textContent = model.about;
  const metres = (side) => `${side} pixels (${side * 30} m)`;
  for (const id of ["stride", "cell"]) {
    at(id).replaceChildren(...model.sides.map((side) => new Option(metres(side), side, false, side === model.default_side)));
  }
  at("files").onchange = (event) => attempt(() => take([...event.target.files]));
  for (const id of ["top", "left", "side", "kind"]) at(id).onchange = () => attempt(look);
  at("settings").onsubmit = (event) => {
    event.preventDefault();
    attempt(run);
  };
  at("cancel").onclick = stop;
  at("save").onclick = save;
  for (const radio of document.querySelectorAll("input[name=shown]")) radio.onchange = show;
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
  });
  document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    at("drop").classList.remove("over");
    attempt(() => take([...event.dataTransfer.files]));
  });
  listen(Object.values(views), at("cell-map"), () => state, choose);
  state.ready = true;
}

start();
