"""Simulated patches as files in exactly the published layouts of BigEarthNet-Landsat and EuroSAT-Landsat."""

import json
from collections.abc import Iterable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import torch
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform
from tqdm import tqdm

from datasets.simulator.constants import CANVAS, CONSTANTS
from datasets.simulator.instruments import USUAL, Observation, as_seen_by, scan_gaps
from datasets.simulator.overpasses import FIRST_DAY
from datasets.simulator.patches import SimulatedPatches
from datasets.simulator.sentinel2 import seen_by_msi
from utils.data_config import SIMULATED_MARK, BigEarthNetInfo, EuroSATInfo
from utils.errors import DataError
from utils.files import replaced_folder
from utils.randomness import generator
from utils.sensors import MSI, OLI

PIXEL = 30.0
"""Metres."""
BOX = 1200
"""Side of a patch's box in its label file, in metres."""
MARK = SIMULATED_MARK
"""First line of the README of every folder written here; a folder without it is never replaced."""
SPLITS = ("train", "val", "test")
_OWN_ENTRIES = {"README.md", "images", "labels", "samples.csv", "eurosat-l"}
_OWN_ENTRIES |= {
    f"{kind}-{split}{end}" for kind, end in (("bigearthnet", ".csv"), ("eurosat", ".txt")) for split in SPLITS
}


class _Record(NamedTuple):
    """One patch on its way to a file."""

    image: np.ndarray  # (C, h, w) uint16
    labels: np.ndarray  # (L,) bool
    day: int
    seconds: int
    column: int
    row: int
    lat: float
    lon: float
    five_digit_time: bool


def check_target(out: Path) -> None:
    """Refuse a folder that holds anything but an earlier simulation.

    Raises:
        DataError: `out` is a file, or a non-empty folder without our README, or holds files of somebody else.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; --out needs a folder")
    entries = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if not entries:
        return
    readme = out / "README.md"
    if not readme.is_file() or not readme.read_text(encoding="utf-8", errors="replace").startswith(MARK):
        raise DataError(f"{out}: not empty and not a simulated dataset; choose another --out or empty it")
    foreign = sorted(entries - _OWN_ENTRIES)
    if foreign:
        raise DataError(f"{out}: holds {foreign[0]}, which the simulator did not write; choose another --out")


def write_bigearthnet(
    out: Path,
    chunks: Iterable[SimulatedPatches],
    counts: tuple[int, int, int],
    readme: str,
    observation: Observation = USUAL,
    seed: int = 0,
) -> None:
    """Write simulated BigEarthNet-Landsat patches.

    Args:
        out: the folder that holds `images/` and `labels/`; replaced as a whole if it is an earlier simulation.
        chunks: `SimulatedPatches` that together hold sum(counts) patches.
        counts: patches of the train, validation and test split.
        readme: text of the README.md.
        observation: by which sensor they are seen, in which year. Bands of another one than OLI are named in the files.
        seed: of what MSI adds.

    Raises:
        UserError: nothing can be written there. Nothing half-written is left.
    """
    check_target(out)
    with replaced_folder(out) as folder:
        (folder / "images").mkdir()
        (folder / "labels").mkdir()
        ids: list[str] = []
        taken: set[str] = set()
        names = () if observation.sensor is OLI else observation.sensor.bands
        for record in _records(_observed(chunks, observation, seed), sum(counts), "simulated BigEarthNet-L"):
            patch_id, record = _unique_id(record, taken)
            crs, left, top = _location(record)
            _write_tiff(folder / "images" / f"{patch_id}.tif", record.image, crs, left, top, names)
            label = _label_entry(record, patch_id, crs, left, top)
            path = folder / "labels" / f"{patch_id}_labels_metadata.json"
            path.write_text(json.dumps(label), encoding="utf-8")
            ids.append(patch_id)
        (folder / "samples.csv").write_text(_lines(["0", *sorted(ids)]))
        for split, part in zip(SPLITS, _parts(ids, counts), strict=True):
            (folder / f"bigearthnet-{split}.csv").write_text(_lines(part))
        (folder / "README.md").write_text(readme, encoding="utf-8")


def write_eurosat(out: Path, chunks: Iterable[SimulatedPatches], counts: tuple[int, int, int], readme: str) -> None:
    """Write simulated EuroSAT-Landsat patches: `eurosat-l/<Class>/<Class>_N.tif` and three split files.

    Arguments and errors as `write_bigearthnet`.
    """
    check_target(out)
    with replaced_folder(out) as folder:
        for name in EuroSATInfo.CLASSES:
            (folder / "eurosat-l" / name).mkdir(parents=True)
        entries: list[str] = []
        number = dict.fromkeys(EuroSATInfo.CLASSES, 0)
        for record in _records(chunks, sum(counts), "simulated EuroSAT-L"):
            name = EuroSATInfo.CLASSES[int(record.labels.argmax())]
            number[name] += 1
            stem = f"{name}_{number[name]}"
            crs, left, top = _location(record)
            _write_tiff(folder / "eurosat-l" / name / f"{stem}.tif", record.image, crs, left, top)
            entries.append(f"{stem}.jpg")
        for split, part in zip(SPLITS, _parts(entries, counts), strict=True):
            (folder / f"eurosat-{split}.txt").write_text(_lines(part))
        (folder / "README.md").write_text(readme, encoding="utf-8")


def _observed(chunks: Iterable[SimulatedPatches], observation: Observation, seed: int) -> Iterator[SimulatedPatches]:
    """The patches as a sensor sees them in its year."""
    for index, chunk in enumerate(chunks):
        if observation is USUAL:
            yield chunk
            continue
        numbers = chunk.images.cpu().numpy()
        if observation.slc_off:
            numbers[np.broadcast_to(_gaps_of(chunk)[:, None], numbers.shape)] = 0
        if observation.sensor is MSI:
            seen = seen_by_msi(numbers, chunk.ground.cpu(), generator(seed, "simulated MSI", index))
        else:
            seen = as_seen_by(numbers.swapaxes(0, 1), observation.sensor).swapaxes(0, 1)
        days = [_day_in(day, observation.year) for day in chunk.places.day.tolist()]
        places = chunk.places._replace(day=torch.tensor(days, device=chunk.places.day.device))
        yield chunk._replace(images=torch.from_numpy(np.ascontiguousarray(seen)), places=places)


def _gaps_of(chunk: SimulatedPatches) -> np.ndarray:
    """(n, h, h) bool: the gaps between scans, if the simulator's tile of patches were the swath."""
    line = np.arange(CANVAS) + (chunk.places.row.cpu().numpy()[:, None] * BOX / PIXEL)
    across = (chunk.places.column.cpu().numpy() + 0.5) / CONSTANTS.tile_count * 2 - 1
    return np.broadcast_to(scan_gaps(across[:, None], line)[..., None], (len(line), CANVAS, CANVAS))


def _day_in(day: int, year: int | None) -> int:
    """Days after `FIRST_DAY` of the same day of a year."""
    date = FIRST_DAY + timedelta(days=day)
    return (date.replace(year=year or date.year) - FIRST_DAY).days


def _records(chunks: Iterable[SimulatedPatches], total: int, what: str) -> Iterator[_Record]:
    """The patches one by one, cut to their file sizes."""
    progress = tqdm(total=total, desc=what, unit="patch", disable=None)
    for chunk in chunks:
        images, labels = chunk.images.cpu().numpy(), chunk.labels.cpu().numpy()
        canvas = images.shape[-1]
        places = [value.tolist() for value in chunk.places]
        lost = chunk.five_digit_time.tolist()
        for index, (height, width) in enumerate(chunk.sizes.tolist()):
            top, left = (canvas - height) // 2, (canvas - width) // 2
            _, column, row, day, seconds, lat, lon = (value[index] for value in places)
            image = images[index, :, top : top + height, left : left + width]
            yield _Record(image, labels[index], day, seconds, column, row, lat, lon, lost[index])
            progress.update()
    progress.close()


def _unique_id(record: _Record, taken: set[str]) -> tuple[str, _Record]:
    """The patch's id, such as S2A_MSIL2A_20170613T101031_11_66; a taken one moves on, second by second."""
    while True:
        day = FIRST_DAY + timedelta(days=record.day)
        time = _clock(record.seconds)
        if record.five_digit_time:
            time = time.removeprefix("0")
        satellite = "AB"[record.day // 5 % 2]  # the two satellites take turns every five days
        patch_id = f"S2{satellite}_MSIL2A_{day:%Y%m%d}T{time}_{record.column}_{record.row}"
        if patch_id not in taken:
            taken.add(patch_id)
            return patch_id, record
        record = record._replace(seconds=record.seconds + 1)


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"


def _location(record: _Record) -> tuple[CRS, int, int]:
    """UTM zone and the box's upper left corner in whole metres on the 30 m grid's half steps."""
    zone = int((record.lon + 180) // 6) + 1
    crs = _utm(zone)
    (x,), (y,) = transform(_wgs84(), crs, [record.lon], [record.lat])[:2]
    half = BOX // 2
    return crs, int((x - half) // 60) * 60, int((y + half) // 60) * 60


@cache
def _utm(zone: int) -> CRS:
    return CRS.from_epsg(32600 + zone)


@cache
def _wgs84() -> CRS:
    return CRS.from_epsg(4326)


def _write_tiff(path: Path, image: np.ndarray, crs: CRS, left: int, top: int, names: tuple[str, ...] = ()) -> None:
    """One GeoTIFF as published: uint16, pixel-interleaved, uncompressed, no nodata tag, centred on its box.

    Bands that are not the published ones are named.
    """
    bands, height, width = image.shape
    corner = from_origin(left + (BOX - width * PIXEL) / 2, top - (BOX - height * PIXEL) / 2, PIXEL, PIXEL)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": bands, "height": height, "width": width}
    with rasterio.open(path, "w", crs=crs, transform=corner, interleave="pixel", **profile) as file:
        file.write(image)
        if names:
            file.descriptions = names


def _label_entry(record: _Record, patch_id: str, crs: CRS, left: int, top: int) -> dict:
    """The label file's content, keys as published."""
    names = [name for name, present in zip(BigEarthNetInfo.CORINE, record.labels, strict=True) if present]
    day = FIRST_DAY + timedelta(days=record.day)
    time = _clock(record.seconds)
    scene = patch_id.rsplit("_", 2)[0].replace("MSIL2A", "MSIL1C")
    zone = crs.to_epsg() - 32600
    return {
        "labels": names,
        "coordinates": {"ulx": left, "uly": top, "lrx": left + BOX, "lry": top - BOX},
        "projection": _wkt(zone),
        "tile_source": f"{scene}_N0205_T{zone}_SIMULATED.SAFE",
        "acquisition_date": f"{day:%Y-%m-%d} {time[:2]}:{time[2:4]}:{time[4:]}",
    }


@cache
def _wkt(zone: int) -> str:
    return _utm(zone).to_wkt(version="WKT1_GDAL")


def _lines(rows: list[str]) -> str:
    """One value a line."""
    return "".join(f"{row}\n" for row in rows)


def _parts(items: list[str], counts: tuple[int, int, int]) -> Iterator[list[str]]:
    """Consecutive pieces of the given lengths."""
    start = 0
    for count in counts:
        yield items[start : start + count]
        start += count
