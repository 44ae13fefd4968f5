"""A simulated scene as a Collection-2 Level-2 folder: band files, QA_PIXEL, MTL and the truth."""

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import rasterio
from rasterio.crs import CRS
from rasterio.warp import transform
from rasterio.windows import Window
from tqdm import tqdm

from datasets.simulator.instruments import MISSIONS
from datasets.simulator.scene import NO_CLASS, STRIPE, SimulatedScene
from utils.data_config import REFLECTANCE_OFFSET, REFLECTANCE_SCALE, SIMULATED_MARK, BigEarthNetInfo
from utils.errors import DataError
from utils.files import replaced_folder
from utils.metadata import Acquisitions, AcquisitionTime, column_of, metadata_columns

PIXEL = 30.0
"""Metres."""
PATH_ROW = "999999"
"""Of the product id: no place on Earth has it, so that nobody takes the scene for a real one."""
_OWN_FILE = re.compile(rf"L[CET]\d{{2}}_L2SP_{PATH_ROW}_.+")
PROFILE: dict[str, Any] = {
    "driver": "GTiff",
    "tiled": True,
    "blockxsize": STRIPE,
    "blockysize": STRIPE,
    "compress": "DEFLATE",
}

README = """{mark}

{product} is a **simulated** scene: no satellite took it. Land cover, pixels and
clouds come from a stated random model (`datasets/simulator/scene.py`). Use it to try the code, not to learn about the
Earth. `truth.tif` holds the index of the 19 BigEarthNet classes that cover the ground ({no_class}: none of them, or
fill). Made by

```
{command}
```
"""
COMMAND = "python -m datasets.simulated --kind scene --size {size} --seed {seed}{seen} --out DIR"


def write_scene(out: Path, scene: SimulatedScene, command: str | None = None) -> str:
    """Write a scene into the folder `out`, in memory that does not grow with its height.

    Args:
        out: replaced as a whole if it is an earlier simulated scene.
        scene: what to write.
        command: what README.md says that it was made by; by default the command for a scene alone.

    Returns:
        The product id.

    Raises:
        DataError: `out` holds something else.
        UserError: nothing can be written there. Nothing half-written is left.
    """
    check_scene_target(out)
    mission = scene.observation.mission(scene.when.year)
    product = f"{mission}_L2SP_{PATH_ROW}_{scene.when:%Y%m%d}_{scene.when:%Y%m%d}_02_T1"
    with replaced_folder(out) as folder:
        _write_rasters(folder, product, scene)
        metadata = _metadata(product, scene)
        (folder / f"{product}_MTL.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
        (folder / f"{product}_MTL.txt").write_text("\n".join(_odl(metadata)) + "\nEND\n", encoding="utf-8")
        command = command or COMMAND.format(size=scene.size, seed=scene.seed, seen=scene.observation.options)
        text = README.format(mark=SIMULATED_MARK, product=product, no_class=NO_CLASS, command=command)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return product


def check_scene_target(out: Path) -> None:
    """Refuse a folder that holds anything but an earlier simulated scene.

    Raises:
        DataError: naming `out` and what is in it.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; --out needs a folder")
    names = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    known = ("README.md", "truth.tif")
    foreign = sorted(name for name in names if name not in known and not _OWN_FILE.fullmatch(name))
    if foreign or (names and "README.md" not in names):
        raise DataError(f"{out}: holds {(foreign or sorted(names))[0]}, which is no part of a simulated scene; "
                        "choose another --out or empty it")  # fmt: skip


def _write_rasters(folder: Path, product: str, scene: SimulatedScene) -> None:
    """Band files, QA_PIXEL and truth, a stripe at a time."""
    crs, corner = grid_of(scene)
    bands = scene.observation.sensor.bands
    names = {band: f"{product}_{band}.TIF" for band in (*bands, "QA_PIXEL")} | {"truth": "truth.tif"}
    common: dict[str, Any] = {
        "width": scene.size,
        "height": scene.size,
        "count": 1,
        "crs": crs,
        "transform": corner,
        **PROFILE,
    }
    with ExitStack() as stack:
        files = {}
        for name, file_name in names.items():
            kind: dict[str, Any] = {"dtype": "uint8", "nodata": NO_CLASS} if name == "truth" else {"dtype": "uint16"}
            kind = kind | ({"nodata": 0} if name in bands else {"nodata": 1} if name == "QA_PIXEL" else {})
            files[name] = stack.enter_context(rasterio.open(folder / file_name, "w", **common, **kind))
        files["truth"].update_tags(classes=json.dumps(BigEarthNetInfo.CLASSES))
        top, progress = 0, tqdm(total=scene.size, desc="simulated scene", unit="row", disable=None)
        for stripe in scene.stripes():
            window = Window.from_slices((top, top + len(stripe.qa)), (0, scene.size))
            for index, band in enumerate(bands):
                files[band].write(stripe.numbers[index], 1, window=window)
            files["QA_PIXEL"].write(stripe.qa, 1, window=window)
            files["truth"].write(stripe.truth, 1, window=window)
            top += len(stripe.qa)
            progress.update(len(stripe.qa))
        progress.close()


def grid_of(scene: SimulatedScene) -> tuple[CRS, rasterio.Affine]:
    """UTM zone and corner; pixel centres lie on whole multiples of 30 m, as Landsat's do."""
    crs = CRS.from_epsg(32600 + int((scene.lon + 180) // 6) + 1)
    (x,), (y,) = transform(CRS.from_epsg(4326), crs, [scene.lon], [scene.lat])[:2]
    half = scene.size // 2
    left, top = (round(x / PIXEL) - half - 0.5) * PIXEL, (round(y / PIXEL) + half + 0.5) * PIXEL
    return crs, rasterio.Affine(PIXEL, 0.0, left, 0.0, -PIXEL, top)


def _metadata(product: str, scene: SimulatedScene) -> dict[str, Any]:
    """What the MTL of such a product says, as far as it is used here."""
    when = scene.when
    columns = metadata_columns(Acquisitions.of([AcquisitionTime.at(when)], scene.lat, scene.lon))
    elevation = column_of(columns, "sun_elevation")[0]
    observation = scene.observation
    numbers = [band.removeprefix("SR_B") for band in observation.sensor.bands]
    scaling = {f"REFLECTANCE_MULT_BAND_{number}": str(REFLECTANCE_SCALE) for number in numbers}
    scaling |= {f"REFLECTANCE_ADD_BAND_{number}": str(REFLECTANCE_OFFSET) for number in numbers}
    files = {f"FILE_NAME_BAND_{number}": f"{product}_SR_B{number}.TIF" for number in numbers}
    return {
        "LANDSAT_METADATA_FILE": {
            "PRODUCT_CONTENTS": {
                "ORIGIN": "simulated by datasets.simulator.scene: no satellite took this",
                "LANDSAT_PRODUCT_ID": product,
                "PROCESSING_LEVEL": "L2SP",
                "COLLECTION_NUMBER": "02",
                **files,
                "FILE_NAME_QUALITY_L1_PIXEL": f"{product}_QA_PIXEL.TIF",
            },
            "IMAGE_ATTRIBUTES": {
                "SPACECRAFT_ID": f"LANDSAT_{observation.satellite(when.year)}",
                "SENSOR_ID": MISSIONS[observation.sensor.name].sensor_id,
                "DATE_ACQUIRED": f"{when:%Y-%m-%d}",
                "SCENE_CENTER_TIME": f"{when:%H:%M:%S}.0000000Z",
                "SUN_ELEVATION": f"{elevation:.8f}",
            },
            "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": scaling,
        }
    }


def _odl(groups: dict[str, Any], indent: str = "") -> list[str]:
    """The same as text, the way MTL.txt writes it."""
    lines = []
    for name, value in groups.items():
        if isinstance(value, dict):
            lines += [f"{indent}GROUP = {name}", *_odl(value, indent + "  "), f"{indent}END_GROUP = {name}"]
        else:
            lines.append(f'{indent}{name} = "{value}"')
    return lines
