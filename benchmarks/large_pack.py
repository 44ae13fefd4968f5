"""A pack of any size for timing, made in memory: simulated patches, rotated, mirrored and with varied radiometry."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.pack.dataset import make_recipe
from datasets.pack.format import (
    FORMAT,
    HEADER,
    LABEL_NAMES,
    PIXELS,
    TABLE,
    FileRecord,
    Header,
    Recipe,
    Source,
    TableRow,
    file_record,
)
from datasets.pack.journal import ids_digest
from datasets.pack.source import table_lines
from datasets.simulator.patch_writer import FIRST_DAY
from datasets.simulator.patches import SimulatedPatches, simulate
from transformation.transformer import center_crop
from utils.data_config import IMAGE_SIZE, BigEarthNetInfo
from utils.errors import UserError
from utils.files import make_folder, write_json
from utils.reporting import size_text
from utils.sensors import OLI

SPLIT = "train.csv"
DISTINCT = 2048
"""Simulated patches; the others are variations of them."""

GAIN, OFFSET = 0.05, 200.0
"""Standard deviations of a variation's factor and of what is added in every band, in digital numbers."""

TURNS = 8
"""Ways to turn and mirror a square."""

CHUNK = 2048
HIGHEST = np.iinfo(np.uint16).max


def make_large_pack(out: Path, patches: int, seed: int) -> Path:
    """Write a pack of BigEarthNet-Landsat's form with `patches` patches and one split, `train.csv`.

    Args:
        out: its folder, absent or empty.
        patches: how many; BigEarthNet-Landsat's training split has 269,695, 6 GB.
        seed: same seed, same pack.

    Raises:
        UserError: when the folder is in use or the disk too small.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: is not empty; give another folder for the pack, or remove it")
    make_folder(out)
    recipe = make_recipe(BigEarthNetInfo.NAME, None, IMAGE_SIZE, published_behaviour=False)
    missing = patches * recipe.patch_bytes - shutil.disk_usage(out).free
    if missing > 0:
        raise UserError(f"{out}: the pack needs {size_text(missing)} more than the disk has; write elsewhere")
    base = simulate(min(patches, DISTINCT), seed)
    pixels = np.lib.format.open_memmap(out / PIXELS, mode="w+", dtype="<u2", shape=recipe.pixels_shape(patches))
    at = 0
    with tqdm(total=patches, desc="making a pack", unit=" patches", leave=False, disable=None) as bar:
        for part in variations(center_crop_all(base), patches, seed):
            pixels[at : at + len(part)] = part
            at += len(part)
            bar.update(len(part))
    pixels.flush()
    del pixels
    rows = list(table_rows(base, patches))
    (out / TABLE).write_bytes(table_lines([tuple(TableRow._fields), *rows]))
    (out / SPLIT).write_text("".join(f"{row.id}\n" for row in rows), encoding="utf-8")
    _write_header(out, recipe, [row.id for row in rows])
    return out


def center_crop_all(base: SimulatedPatches) -> np.ndarray:
    """(n, C, S, S) uint16 from the canvases."""
    return np.stack([center_crop(image, IMAGE_SIZE) for image in base.images.numpy()])


def variations(base: np.ndarray, patches: int, seed: int) -> Iterator[np.ndarray]:
    """`patches` patches in pieces: those of `base` as they are, then turned, mirrored and re-lit; fill stays fill."""
    for start in range(0, patches, CHUNK):
        random = np.random.default_rng([seed, start])
        index = np.arange(start, min(start + CHUNK, patches))
        chunk = base[index % len(base)]
        turns = index // len(base)
        for turn in np.unique(turns):
            rows = turns == turn
            chunk[rows] = turned(chunk[rows], turn % TURNS)
        shape = (len(index), base.shape[1], 1, 1)
        gain, offset = 1 + GAIN * random.standard_normal(shape), OFFSET * random.standard_normal(shape)
        fresh = (turns > 0)[:, None, None, None] & (chunk > 0)
        lit = np.clip(chunk * gain.astype(np.float32) + offset.astype(np.float32), 1, HIGHEST)
        yield np.where(fresh, lit, chunk).astype(np.uint16)


def turned(images: np.ndarray, turn: int) -> np.ndarray:
    """(n, C, S, S), turned by quarter turns, from the fifth way on mirrored."""
    images = np.rot90(images, turn % 4, axes=(2, 3))
    return images[..., ::-1] if turn >= 4 else images


def table_rows(base: SimulatedPatches, patches: int) -> Iterator[TableRow]:
    """The table: times and places of the simulated patches, and a name of its own for every patch."""
    seconds, lat, lon = (getattr(base.places, name).tolist() for name in ("seconds", "lat", "lon"))
    days = [FIRST_DAY + timedelta(days=day) for day in base.places.day.tolist()]
    labels = [";".join(map(str, np.flatnonzero(row))) for row in base.labels.numpy()]
    fill = (~center_crop_all(base).all(axis=1)).sum(axis=(1, 2)).tolist()
    for index in range(patches):
        at = index % len(days)
        clock = timedelta(seconds=int(seconds[at]))
        time = f"{days[at]:%Y-%m-%d}T{str(clock).zfill(8)}"
        name = f"S2A_MSIL2A_{time.translate(_NO_MARKS)}_{index // 1000}_{index % 1000}"
        yield TableRow(name, time, repr(lat[at]), repr(lon[at]), labels[at], str(fill[at]), "00000000")


_NO_MARKS = str.maketrans("", "", "-:")


def _write_header(out: Path, recipe: Recipe, ids: list[str]) -> None:
    names = (PIXELS, TABLE, SPLIT)
    total = sum((out / name).stat().st_size for name in names)
    with tqdm(total=total, desc="checksums", unit="B", unit_scale=True, leave=False, disable=None) as bar:
        files: dict[str, FileRecord] = {name: file_record(out / name, bar) for name in names}
    header = Header(
        format=FORMAT,
        recipe=recipe,
        simulated=True,
        count=len(ids),
        bands=list(OLI.bands),
        label_names=list(LABEL_NAMES[BigEarthNetInfo.NAME]),
        source=Source(ids=ids_digest(ids), listing="made in memory", left_out=[]),
        splits=[SPLIT],
        files=files,
    )
    write_json(out / HEADER, header.model_dump())
