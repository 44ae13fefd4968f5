"""Windows of a real scene with the classes that a land-cover map has in them, as a dataset with spatial folds."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from configs.recipe import LandCoverSection
from configs.reproduction import SourceSection
from datasets.labelled_folder import NAME as LABELLED_FOLDER
from models.config import ModelConfig
from studies.engine.data import Source
from studies.engine.divisions import Fold
from studies.engine.stages import StageCache
from utils.data_config import IMAGE_SIZE
from utils.errors import DataError
from utils.files import make_folder, sha256, write_json, write_text
from utils.randomness import derive_seed

TABLE = "labels.csv"
LEAST_VALID = 0.9
"""Share of a window's pixels that hold data."""


class LandCoverSource(Source):
    """Windows of one scene; the bootstrap draws the squares of windows that folds keep together.

    Args:
        key, section, path, folds, model: as for `Source`.
        block_of: the square of every window, by id.
        scene: name of the scene, for reports.
    """

    def __init__(
        self,
        key: str,
        section: SourceSection,
        path: str,
        folds: tuple[Fold, ...],
        model: ModelConfig,
        block_of: Mapping[str, int],
        scene: str,
    ) -> None:
        super().__init__(key, section, path, folds, model)
        self._block_of, self._scene = block_of, scene

    def blocks(self, ids: Sequence[str]) -> np.ndarray:
        return np.array([self._block_of[name] for name in ids], np.int64)

    def remarks(self) -> list[str]:
        """By the scene, as the windows lie in a folder of this project's own."""
        return [remark.replace(str(Path(self.path).parent), self._scene) for remark in super().remarks()]

    def patches(self) -> str:
        return f"windows of {self._scene}"


class LabelledWindow(NamedTuple):
    """One window that enough of the map is known of."""

    row: int
    column: int
    """Counted in windows."""
    pixels: np.ndarray
    """(bands, S, S), as stored."""
    labels: list[str]
    """Names of the classes with the least share or more."""

    @property
    def name(self) -> str:
        return f"images/window_{self.row:03d}_{self.column:03d}.tif"


def land_cover_source(section: LandCoverSection, seed: int, model: ModelConfig, cache: StageCache) -> LandCoverSource:
    """Cut the windows where that is not done yet.

    Args:
        section: scene, map, classes.
        seed: which square of windows goes into which fold.
        model: decides how windows are read.
        cache: of the stages.

    Raises:
        DataError: for everything that is wrong with the two files.
    """
    scene, land_cover = (_file(section, key) for key in ("scene", "land_cover"))
    inputs = {
        "settings": section.model_dump(mode="json", exclude={"folder"}),
        "files": [sha256(scene), sha256(land_cover)],
        "seed": seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        return _cut(section, seed, folder, scene, land_cover)

    stage = cache.stage("windows/land_cover", inputs, work)
    folds = tuple(_fold(stage.folder, number, section.folds) for number in range(section.folds))
    source = SourceSection(
        dataset=LABELLED_FOLDER,
        dataset_path=str(stage.folder / TABLE),
        bands=list(section.bands),
        scale=section.scale,
        offset=section.offset,
        crop="center",
        statistics="bigearthnet_ls",
    )
    place = str(stage.folder / TABLE)
    return LandCoverSource("land_cover", source, place, folds, model, stage.result["blocks"], section.scene)


def _file(section: LandCoverSection, key: str) -> Path:
    path = Path(section.folder) / getattr(section, key)
    if not path.is_file():
        raise DataError(f"{path}: no such file; set land_cover.folder and land_cover.{key}, or land_cover to null")
    return path


def _cut(section: LandCoverSection, seed: int, folder: Path, scene: Path, land_cover: Path) -> dict[str, Any]:
    """Write windows, their table and the split files; returns the square of every window."""
    make_folder(folder / "images")
    lines, blocks = [], {}
    try:
        with rasterio.open(scene) as image, rasterio.open(land_cover) as cover:
            if (image.shape, image.transform, image.crs) != (cover.shape, cover.transform, cover.crs):
                raise DataError(f"{land_cover}: lies on another grid than {scene}; resample it to the scene's")
            for window in _labelled_windows(section, image, cover):
                _write(folder / window.name, image, window)
                lines.append(f"{window.name},{';'.join(window.labels)}\n")
                blocks[window.name] = (window.row // section.block, window.column // section.block)
    except RasterioError as error:
        raise DataError(f"{scene} or {land_cover}: cannot be read ({error})") from error
    numbers = {square: number for number, square in enumerate(sorted(set(blocks.values())))}
    if len(numbers) < section.folds:
        raise DataError(
            f"{land_cover}: labelled windows lie in {len(numbers)} squares, too few for {section.folds} folds; set a "
            "smaller land_cover.block or land_cover.least_labelled"
        )
    write_text(folder / TABLE, "".join(lines))
    block_of = {name: numbers[square] for name, square in blocks.items()}
    fold_of = _folds(np.array(list(block_of.values())), section.folds, seed)
    for fold in range(section.folds):
        members = [name for name, number in block_of.items() if fold_of[number] == fold]
        write_text(folder / f"part{fold}.csv", "".join(f"{name}\n" for name in members))
    for fold in range(section.folds):
        parts = {"test": [fold], "val": [(fold + 1) % section.folds]}
        parts["train"] = [other for other in range(section.folds) if other not in parts["test"] + parts["val"]]
        for split, numbers_of in parts.items():
            text = "".join((folder / f"part{number}.csv").read_text(encoding="utf-8") for number in numbers_of)
            write_text(folder / f"fold{fold}_{split}.csv", text)
    write_text(folder / "all.csv", "".join(f"{name}\n" for name in block_of))
    write_json(folder / "blocks.json", block_of)
    return {"blocks": block_of}


def _labelled_windows(
    section: LandCoverSection, image: DatasetReader, cover: DatasetReader
) -> Iterator[LabelledWindow]:
    """Windows of the grid that hold data and are labelled, with the classes in them."""
    side = IMAGE_SIZE
    for row in range(image.height // side):
        for column in range(image.width // side):
            window = Window(column * side, row * side, side, side)  # pyright: ignore[reportCallIssue]
            numbers = cover.read(1, window=window)
            shares = {name: float((numbers == int(key)).mean()) for key, name in section.classes.items()}
            labels = [name for name, share in shares.items() if share >= section.least_share]
            if sum(shares.values()) < section.least_labelled or not labels:
                continue
            if (image.dataset_mask(window=window) != 0).mean() >= LEAST_VALID:
                yield LabelledWindow(row, column, image.read(window=window), labels)


def _write(path: Path, image: DatasetReader, window: LabelledWindow) -> None:
    corner = Window(window.column * IMAGE_SIZE, window.row * IMAGE_SIZE, IMAGE_SIZE, IMAGE_SIZE)  # pyright: ignore[reportCallIssue]
    profile = {
        "driver": "GTiff",
        "count": image.count,
        "dtype": image.dtypes[0],
        "nodata": image.nodata,
        "width": IMAGE_SIZE,
        "height": IMAGE_SIZE,
        "crs": image.crs,
        "transform": image.window_transform(corner),
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(window.pixels)


def _folds(block_of: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of every square, (squares,), equally full but for a square."""
    sizes = np.bincount(block_of)
    fold_of, filled = np.empty(len(sizes), int), np.zeros(folds)
    for block in np.random.default_rng(derive_seed(seed, "land cover folds")).permutation(len(sizes)):
        fold_of[block] = np.argmin(filled)
        filled[fold_of[block]] += sizes[block]
    return fold_of


def _fold(folder: Path, number: int, count: int) -> Fold:
    splits = {split: str(folder / f"fold{number}_{split}.csv") for split in ("train", "val", "test")}
    return Fold(f"fold{number}", {**splits, "all": str(folder / "all.csv")})
