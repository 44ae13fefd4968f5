// What the page was made with. Arrays are little-endian bytes in base64.
const meta = JSON.parse(document.getElementById("meta").textContent);
const count = meta.count;
const at = (id) => document.getElementById(id);

function bytes(text) {
  const raw = atob(text);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}
const numbers = (Kind, text) => new Kind(bytes(text).buffer);

const views = meta.views.map((view) => ({ name: view.name, xy: numbers(Uint16Array, view.xy) }));
const splits = bytes(meta.splits);
const minutes = numbers(Int32Array, meta.minutes);
const latLon = meta.latLon && numbers(Float32Array, meta.latLon);
const near = numbers(Uint32Array, meta.near);
const labelBits = bytes(meta.labels);
const labelBytes = Math.ceil(meta.classes.length / 8);

const has = (i, label) => (labelBits[i * labelBytes + (label >> 3)] >> (label & 7)) & 1;
const labelsOf = (i) => meta.classes.map((_, label) => label).filter((label) => has(i, label));
const idOf = (i) => (meta.ids ? meta.ids[i] : `row ${i}`);
const neighboursOf = (i) => near.subarray(i * meta.nearCount, (i + 1) * meta.nearCount);

function dateOf(i) {
  if (minutes[i] < 0) return null;
  return new Date(minutes[i] * 60000).toISOString().slice(0, 16).replace("T", " ") + " UTC";
}

function placeOf(i) {
  if (!latLon) return null;
  const [lat, lon] = latLon.subarray(2 * i, 2 * i + 2);
  return `${Math.abs(lat).toFixed(3)}° ${lat < 0 ? "S" : "N"}, ${Math.abs(lon).toFixed(3)}° ${lon < 0 ? "W" : "E"}`;
}

// Sheets of pictures are decoded when one of their tiles is first wanted.
const sheets = new Map();
let onSheet = () => {};

function sheetOf(i) {
  if (!meta.sheets) return null;
  const number = Math.floor(i / (meta.tilesARow * meta.tilesARow));
  if (!sheets.has(number)) {
    const image = new Image();
    image.onload = () => onSheet();
    image.src = "data:image/webp;base64," + at("sheet" + number).textContent;
    sheets.set(number, image);
  }
  const image = sheets.get(number);
  return image.complete && image.naturalWidth ? image : null;
}

// Draws patch i into a square; false while its sheet is not decoded yet.
function drawPicture(context, i, x, y, side) {
  const image = sheetOf(i);
  if (!image) return false;
  const tile = i % (meta.tilesARow * meta.tilesARow);
  const s = meta.tileSide;
  const column = tile % meta.tilesARow;
  context.drawImage(image, column * s, ((tile - column) / meta.tilesARow) * s, s, s, x, y, side, side);
  return true;
}
