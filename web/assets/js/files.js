// Dropped files to a scene: which file is which band, on which grid, taken when.
import { BANDS } from "./numbers.js";
import { utmZone } from "./place.js";

const SPACING = 30; // metres, of the patches that the model is trained on
const BAND_NAME = /(?:^|[_ .-])(?:SR_)?B(?:AND)?[_ ]?0*([1-7])(?:\.tiff?)?$/i;
const QA_NAME = /QA_PIXEL(?:\.tiff?)?$/i;
const PRODUCT = /(L[A-Z]\d{2})_(L\d[A-Z0-9]{2})_(?:\d{6})_(\d{4})(\d{2})(\d{2})/i;

/** A scene whose pixels are not read yet. Throws an Error that says what to do. */
export async function openScene(files) {
  const rasters = files.filter((file) => /\.tiff?$/i.test(file.name));
  if (!rasters.length) throw new Error("These are no GeoTIFFs (.tif): choose a scene's file, or its seven band files.");
  const opened = await Promise.all(rasters.map(openRaster));
  const { bands, qa, notes } = rasters.length === 1 ? fromStack(opened[0]) : fromBands(opened);
  const grid = gridOf(bands[0], notes);
  for (const other of [...bands, ...(qa ? [qa] : [])]) requireSame(bands[0], other);
  const texts = await Promise.all(files.filter((file) => /MTL\.(txt|json)$/i.test(file.name)).map((file) => file.text()));
  const name = rasters[0].name.replace(/(_SR_B\d|_QA_PIXEL)?\.tiff?$/i, "");
  return { name, bands, qa, grid, notes, when: whenOf(name, texts.join("\n")) };
}

async function openRaster(file) {
  try {
    const tiff = await GeoTIFF.fromBlob(file);
    const image = await tiff.getImage();
    const samples = image.getSamplesPerPixel();
    const names = [];
    for (let sample = 0; sample < samples; sample++) {
      names.push(String((await image.getGDALMetadata(sample))?.DESCRIPTION ?? ""));
    }
    return { file: file.name, image, samples, names, mask: await maskOf(tiff, image) };
  } catch (error) {
    throw new Error(`${file.name}: cannot be read (damaged, or no GeoTIFF): ${error.message}`);
  }
}

/** The image of a file that says which pixels are valid, if there is one. */
async function maskOf(tiff, image) {
  const count = await tiff.getImageCount();
  for (let index = 1; index < count; index++) {
    const other = await tiff.getImage(index);
    const kind = other.fileDirectory.getValue("NewSubfileType") ?? 0;
    if (kind & 4 && other.getWidth() === image.getWidth() && other.getHeight() === image.getHeight()) return other;
  }
  return null;
}

function fromStack(raster) {
  const all = raster.names.map((name, sample) => ({ ...raster, name, sample }));
  const qa = all.find((band) => QA_NAME.test(band.name)) ?? null;
  const rest = all.filter((band) => band !== qa);
  const numbered = rest.map((band) => BAND_NAME.exec(band.name)?.[1]);
  const ordered = [1, 2, 3, 4, 5, 6, 7].map((k) => rest.filter((_, at) => numbered[at] === String(k)));
  if (ordered.every((found) => found.length === 1)) return { bands: ordered.map(([band]) => band), qa, notes: [] };
  if (rest.length !== BANDS) {
    throw new Error(`${raster.file}: has ${rest.length} bands, expected seven: SR_B1 to SR_B7 of Landsat 8 or 9.`);
  }
  if (numbered.some(Boolean)) throw new Error(`${raster.file}: its bands are ${raster.names.join(", ")}, not SR_B1 to SR_B7.`);
  return { bands: rest, qa, notes: ["The file does not name its bands: they are taken to be SR_B1 to SR_B7 in order."] };
}

function fromBands(rasters) {
  const qa = rasters.find((raster) => QA_NAME.test(raster.file));
  const bands = [1, 2, 3, 4, 5, 6, 7].map((number) => {
    const found = rasters.filter((raster) => raster !== qa && BAND_NAME.exec(raster.file)?.[1] === String(number));
    if (found.length !== 1) throw new Error(`Band ${number} is ${found.length ? "there twice" : "missing"}: choose SR_B1 to SR_B7 of one scene.`);
    return { ...found[0], sample: 0 };
  });
  const notes = qa ? [] : ["Without QA_PIXEL nothing says where clouds and their shadows are."];
  return { bands, qa: qa ? { ...qa, sample: 0 } : null, notes };
}

/** Where the pixels lie: {width, height, x, y of the upper left corner, zone}; x is null where no place is known. */
function gridOf(band, notes) {
  const { image } = band;
  const size = { width: image.getWidth(), height: image.getHeight() };
  let origin, resolution;
  try {
    [origin, resolution] = [image.getOrigin(), image.getResolution()];
  } catch {
    notes.push("The file has no georeferencing: the model is not told the place.");
    return { ...size, x: null, y: null, zone: null };
  }
  const keys = image.getGeoKeys() ?? {};
  if (Math.abs(resolution[0] - SPACING) > 0.03 || Math.abs(resolution[1] + SPACING) > 0.03) {
    throw new Error(`${band.file}: its pixels are ${resolution[0]} × ${-resolution[1]}, the model knows 30 m, north up; reproject it to its UTM zone.`);
  }
  const half = keys.GTRasterTypeGeoKey === 2 ? SPACING / 2 : 0; // the coordinates are those of a pixel's middle
  const zone = utmZone(keys.ProjectedCSTypeGeoKey ?? 0);
  if (!zone) notes.push("The map projection is not UTM: the model is not told the place.");
  return { ...size, x: origin[0] - half, y: origin[1] + half, zone };
}

function requireSame(first, other) {
  const [a, b] = [first.image, other.image];
  const corner = (image) => (image.fileDirectory.hasTag("ModelTiepoint") ? image.getOrigin().join() : "");
  if (a.getWidth() !== b.getWidth() || a.getHeight() !== b.getHeight() || corner(a) !== corner(b)) {
    throw new Error(`${other.file}: lies on another grid than ${first.file}; choose the files of one scene.`);
  }
}

/** {day, clock, sun}, empty where not known. */
function whenOf(name, mtl) {
  const said = (key) => new RegExp(`"?${key}"?\\s*[=:]\\s*"?([^"\\s,]+)`).exec(mtl)?.[1] ?? "";
  const product = PRODUCT.exec(name);
  if (product && !/^L[CO]0[89]$/i.test(product[1])) throw new Error(`${name}: the model takes Landsat 8 and 9 only.`);
  if (product && !/^L2/i.test(product[2])) throw new Error(`${name}: is not a Level-2 product; choose the Level-2 one (L2SP).`);
  return {
    day: said("DATE_ACQUIRED") || (product ? product.slice(3, 6).join("-") : ""),
    clock: said("SCENE_CENTER_TIME").slice(0, 8),
    sun: parseFloat(said("SUN_ELEVATION")),
  };
}

/** Seven bands of a part of a scene as stored, and what is declared hidden; see `landsatNumbers`. */
export async function readPart(scene, { top, left, height, width }) {
  const window = [left, top, left + width, top + height];
  const read = async (image, sample) => (await image.readRasters({ window, samples: [sample] }))[0];
  const stacked = scene.bands.every((band) => band.image === scene.bands[0].image);
  const bands = stacked
    ? [...(await scene.bands[0].image.readRasters({ window, samples: scene.bands.map((band) => band.sample) }))]
    : await Promise.all(scene.bands.map((band) => read(band.image, band.sample)));
  const nodata = scene.bands.map((band) => band.image.getGDALNoData());
  const masks = await Promise.all([...new Set(scene.bands.map((band) => band.mask))].filter(Boolean).map((mask) => read(mask, 0)));
  const mask = masks.length ? masks[0].map((_, i) => (masks.every((one) => one[i]) ? 1 : 0)) : null;
  const qa = scene.qa ? await read(scene.qa.image, scene.qa.sample) : null;
  return { bands, declared: { nodata, mask, qa } };
}
