// What the colours of the map mean, and what is known of the selected cell.
import { RAMP } from "./maps.js";
import { toDegrees } from "./place.js";

const hatch = '<span class="hatch"></span> not shown: fill, cloud or shadow, or more than half of a cell';

function element(name, text = "", attributes = {}) {
  const made = Object.assign(document.createElement(name), { textContent: text });
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function hidden() {
  const line = element("p", "", { class: "quiet" });
  line.innerHTML = hatch;
  return line;
}

export function componentLegend(place, explained) {
  const share = `${Math.round(100 * explained)} %`;
  place.replaceChildren(element("p", `First three principal components of the embeddings as red, green and blue (${share} of the variance). Alike colours are alike embeddings.`, { class: "quiet" }), hidden());
}

export function similarityLegend(place) {
  const ramp = element("canvas", "", { class: "ramp", width: String(RAMP.length * 20), height: "1" });
  const pen = ramp.getContext("2d");
  const colours = pen.createLinearGradient(0, 0, ramp.width, 0);
  RAMP.forEach((colour, at) => colours.addColorStop(at / (RAMP.length - 1), colour));
  pen.fillStyle = colours;
  pen.fillRect(0, 0, ramp.width, 1);
  const ticks = element("div", "", { class: "ticks" });
  ticks.append(...["−1 unlike", "0", "1 alike"].map((text) => element("span", text)));
  place.replaceChildren(element("p", "Cosine similarity to the selected cell, of embeddings standardised over the scene", { class: "quiet" }), ramp, ticks, hidden());
}

/** Classes that occur, largest first; pressing one calls `emphasise` with its index, or null. */
export function coverLegend(place, best, probe, emphasised, emphasise) {
  const counts = new Map();
  for (const index of best) if (index !== 255) counts.set(index, (counts.get(index) ?? 0) + 1);
  const total = [...counts.values()].reduce((sum, value) => sum + value, 0);
  const list = element("ul");
  for (const [index, count] of [...counts].sort((a, b) => b[1] - a[1])) {
    const button = element("button", "", { type: "button", "aria-pressed": String(emphasised === index) });
    const swatch = element("span", "", { class: "swatch" });
    swatch.style.background = probe.colours[index];
    button.append(swatch, element("span", probe.classes[index]), element("span", `${((100 * count) / total).toFixed(1)} %`, { class: "share" }));
    button.onclick = () => emphasise(emphasised === index ? null : index);
    list.append(element("li"));
    list.lastChild.append(button);
  }
  place.replaceChildren(element("p", "Land cover as mapped by the probe; press a class to see where it is.", { class: "quiet" }), list, hidden());
}

/** Lines about a cell. */
export function facts(place, { result, selected, scene, part, probe, cover }) {
  const [row, column] = selected;
  const index = row * result.columns + column;
  const lines = [`row ${row}, column ${column}, ${result.cell * 30} m wide`];
  if (scene.grid.zone) {
    const pixel = (start, at) => start + at * result.cell + result.cell / 2;
    const x = scene.grid.x + 30 * (part.left + pixel(result.origin.left, column));
    const y = scene.grid.y - 30 * (part.top + pixel(result.origin.top, row));
    const [lat, lon] = toDegrees(x, y, scene.grid.zone);
    lines.push(`${Math.abs(lat).toFixed(4)}° ${lat < 0 ? "S" : "N"}, ${Math.abs(lon).toFixed(4)}° ${lon < 0 ? "W" : "E"}`);
  }
  if (Number.isNaN(result.cells[index * result.width])) lines.push("not seen: fill, cloud or shadow");
  else if (cover) {
    const count = probe.columns.length;
    const chances = [...cover.chances.subarray(index * count, (index + 1) * count)].map((share, c) => [share, probe.classes[probe.columns[c]]]);
    for (const [share, name] of chances.sort((a, b) => b[0] - a[0]).slice(0, 3)) lines.push(`${name}: ${Math.round(100 * share)} %`);
  }
  place.replaceChildren(...lines.map((line) => element("li", line)));
}
