"""A linear probe on an embedding map: class probabilities, the likeliest class, its names, colours and picture."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import rasterio
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from models.config import ModelConfig
from models.pooling import MAP_POOLINGS, vector_width
from scenes.input.product import Scene
from scenes.products.embedding_file import EmbeddingMap
from scenes.products.geotiffs import write_cog
from scenes.products.pictures import GREY, LARGEST_SIDE, scene_panels, show_cells
from utils.analysis_utils import save_figure, short_name
from utils.colour_vision import palette
from utils.data_config import DATASETS, EuroSATInfo
from utils.errors import ConfigError
from utils.files import write_text
from utils.parsing import parse_json
from utils.sensors import OLI

if TYPE_CHECKING:  # scikit-learn takes more than a second to import, and maps without a probe do without
    from classification_models.logistic_regression import LogisticRegressionModel

NO_CLASS = 255
LEGEND_LETTERS = 42
"""In a line of the names beside the map."""
LETTER, HANDLE = 0.078, 0.75
"""Inches of a letter, and of the colour before it."""
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Letters that XML 1.0 does not have (its production 2)."""
PROBABILITY_STEPS = 250
"""A probability is stored as a whole number of 1 / 250."""

_COLOURS = {
    "Urban fabric": "#d51012", "Industrial or commercial units": "#a232cb", "Arable land": "#f9ed99",
    "Permanent crops": "#d2a06f", "Pastures": "#d5d549", "Complex cultivation patterns": "#cdb721",
    "Land principally occupied by agriculture, with significant areas of natural vegetation": "#cec583",
    "Agro-forestry areas": "#ccabaa", "Broad-leaved forest": "#62a80d", "Coniferous forest": "#086d3c",
    "Mixed forest": "#189a57", "Natural grassland and sparsely vegetated areas": "#a1dbe3",
    "Moors, heathland and sclerophyllous vegetation": "#779b8d", "Transitional woodland, shrub": "#d3f629",
    "Beaches, dunes, sands": "#e4d9b2", "Inland wetlands": "#868bd8", "Coastal wetlands": "#c09ac9",
    "Inland waters": "#4eb5f8", "Marine waters": "#265fa2",
    "AnnualCrop": "#faf4bb", "Forest": "#088408", "HerbaceousVegetation": "#a6d0a2", "Highway": "#59879e",
    "Industrial": "#a72cdb", "Pasture": "#d6de3f", "PermanentCrop": "#e59a23", "Residential": "#fa215f",
    "River": "#47a9e8", "SeaLake": "#285392",
}  # fmt: skip
"""Of the classes of the two datasets: as near to those of land-cover maps as can be told apart, also with red-green
colour blindness; other classes take those of `utils.colour_vision.palette`."""


class Probe(NamedTuple):
    """A probe and the embeddings it was fitted on."""

    path: Path
    model: "LogisticRegressionModel"
    classes: tuple[str, ...]
    pool: str | None
    """None where its record does not say."""
    dataset: str | None
    statistics: str | None
    checkpoint_sha256: str | None
    missing_bands: tuple[str, ...] | None = None
    """Common names of those that its images did not have; None where its record does not say."""

    @property
    def width(self) -> int:
        """Features that it takes."""
        return self.model.head.coef.shape[1]


def load_probe(path: Path, config: ModelConfig, trust_pickle: bool = False) -> Probe:
    """Read a probe and the JSON beside it; `trust_pickle` as in `LogisticRegressionModel.load`.

    Raises:
        CheckpointError: when the probe cannot be read.
        ConfigError: when it takes other features than an embedding's.
    """
    from classification_models.logistic_regression import LogisticRegressionModel

    model = LogisticRegressionModel.load(path, trust_pickle)
    try:
        record = parse_json(path.with_suffix(".json").read_text(encoding="utf-8"))
        train = (record.get("embeddings") or {}).get("train") or {}
        pool = _pool_of(record, train, config)
        dataset = train.get("dataset")
        statistics = train.get("config", {}).get("data", {}).get("statistics")
        sha = train.get("checkpoint", {}).get("sha256")
        missing = _missing_bands(train)
        said = (pool, dataset, statistics, sha, *(missing or ()), *(record.get("classes") or []))
        if not all(value is None or isinstance(value, str) for value in said):
            raise TypeError("names that are no text")
    except (OSError, ValueError, AttributeError, TypeError):
        record, pool, dataset, statistics, sha, missing = {}, None, None, None, None, None
    width = model.head.coef.shape[1]
    if (pool is not None and pool not in MAP_POOLINGS) or width not in fitting_widths(config):
        listed = " or ".join(f"{count:,}" for count in sorted(fitting_widths(config)))
        raise ConfigError(
            f"{path}: takes {width:,} features, a cell of this model has {listed}; fit the probe on embeddings with "
            f"pool {', '.join(MAP_POOLINGS)} of the same checkpoint"
        )
    classes = _class_names(record, model)
    statistics = statistics if statistics in DATASETS else None
    if dataset is None and classes == EuroSATInfo.CLASSES:  # a published probe
        dataset = EuroSATInfo.NAME
    return Probe(path, model, classes, pool, dataset, statistics, sha, missing)


def fitting_widths(config: ModelConfig) -> dict[int, str]:
    """Width of a cell's vector to the first pooling that has it."""
    return {vector_width(config, name): name for name in reversed(MAP_POOLINGS)}


def _missing_bands(train: dict) -> tuple[str, ...] | None:
    """Common names of the bands that the images of a probe's embeddings did not have; None where nothing is said."""
    if not train.get("dataset"):
        return None
    of_scene = train.get("config", {}).get("scene", {})
    folder = train.get("labelled_folder") or {}
    of_folder = [OLI.common[OLI.bands.index(band)] for band in folder.get("missing_bands", [])]
    return tuple(of_scene.get("missing_bands", of_folder))


def _pool_of(record: dict, train: dict, config: ModelConfig) -> str | None:
    """Which pooling the probe's features are."""
    cls = f"{config.cls_index * config.embed_dim}:{(config.cls_index + 1) * config.embed_dim}"
    if record.get("feature_slice") == cls:
        return "cls"
    if train.get("pool") == "all":
        return "mean" if record.get("pool") else None
    return train.get("pool")


def _class_names(record: dict, model: "LogisticRegressionModel") -> tuple[str, ...]:
    """Names by class index."""
    count = len(model.classes_) if model.multilabel else int(np.max(model.classes_)) + 1
    names = record.get("classes") or []
    if len(names) < count:
        known = {len(info.CLASSES): info.CLASSES for info in DATASETS.values()}
        names = known.get(count, [f"class {index}" for index in range(count)])
    return tuple(names)


def class_colours(classes: tuple[str, ...]) -> dict[int, tuple[int, int, int, int]]:
    """Class index to red, green, blue and opacity, 0 to 255."""
    texts = [_COLOURS.get(name) for name in classes]
    named = {k: tuple(bytes.fromhex(text[1:])) for k, text in enumerate(texts) if text}
    unnamed = [k for k, text in enumerate(texts) if not text]
    spare = palette(len(unnamed), np.array(list(named.values())).reshape(-1, 3) / 255)
    others = dict(zip(unnamed, np.rint(255 * spare).astype(int).tolist(), strict=True))
    colours = {}
    for k in range(len(classes)):
        red, green, blue = {**named, **others}[k]
        colours[k] = (int(red), int(green), int(blue), 255)
    return colours


def make_land_cover(
    scene: Scene, path: Path, embeddings: EmbeddingMap, probe: Probe, scratch: Path
) -> tuple[dict[str, float], list[Path]]:
    """Write the map at `path`, and beside it probabilities, names, colours and pictures.

    Returns:
        Share of the visible cells by class name, and the files.
    """
    shares = write_land_cover(path.parent, embeddings, probe, scratch)
    picture = save_figure(plot_land_cover(scene, path, probe.classes, shares), path.with_suffix(".png"))
    legend = save_figure(plot_legend(probe.classes), path.with_name("land_cover_legend.png"))
    names = write_class_names(path, probe.classes)
    return shares, [path, path.with_name("probabilities.tif"), *names, picture, legend]


def write_land_cover(folder: Path, embeddings: EmbeddingMap, probe: Probe, scratch: Path) -> dict[str, float]:
    """Write `probabilities.tif` and `land_cover.tif`.

    The class of a cell is the one of largest probability, also of a probe with several labels a patch.

    Returns:
        Share of the visible cells by class name.
    """
    columns = np.asarray(probe.model.classes_)

    def probabilities() -> Iterator[np.ndarray]:
        for cells in embeddings.stripes():
            out = np.full((len(columns), *cells.valid.shape), NO_CLASS, np.uint8)
            if cells.valid.any():
                scores = probe.model.predict_proba(cells.values[cells.valid])
                out[:, cells.valid] = np.rint(scores * PROBABILITY_STEPS).T.astype(np.uint8)
            yield out

    counts = np.zeros(len(probe.classes), np.int64)

    def likeliest() -> Iterator[np.ndarray]:
        for cells in embeddings.stripes():
            out = np.full((1, *cells.valid.shape), NO_CLASS, np.uint8)
            if cells.valid.any():
                scores = probe.model.predict_proba(cells.values[cells.valid])
                out[0, cells.valid] = columns[scores.argmax(axis=1)]
                counts[:] += np.bincount(out[0, cells.valid], minlength=len(counts))
            yield out

    tags = {"MOEMAE_PROBE": probe.path.name, "MOEMAE_CLASSES": json.dumps(probe.classes)}
    names = tuple(probe.classes[int(column)] for column in columns)
    steps = {"scales": [1 / PROBABILITY_STEPS] * len(names), "offsets": [0.0] * len(names)}
    layer = embeddings.layer(names, "uint8", NO_CLASS, tags=tags, **steps)
    write_cog(folder / "probabilities.tif", layer, probabilities(), scratch)
    colours = class_colours(probe.classes)
    layer = embeddings.layer(("land cover",), "uint8", NO_CLASS, tags=tags, resampling="mode", colours=colours)
    write_cog(folder / "land_cover.tif", layer, likeliest(), scratch)
    total = max(1, counts.sum())
    return {name: float(count / total) for name, count in zip(probe.classes, counts, strict=True)}


def plot_land_cover(
    scene: Scene, land_cover: Path, classes: tuple[str, ...], shares: dict[str, float], mapped_by: str = "the probe"
) -> Figure:
    """The map beside the scene in true colour, with the colours, names and shares of the classes that it shows."""
    colours = {index: np.array(colour) / 255 for index, colour in class_colours(classes).items()}
    shown = sorted((k for k, name in enumerate(classes) if shares[name] > 0), key=lambda k: -shares[classes[k]])
    handles = _handles(classes, shown, colours, shares)
    longest = max((len(line) for handle in handles for line in str(handle.get_label()).splitlines()), default=0)
    figure, (_, right) = scene_panels(scene, beside=HANDLE + LETTER * longest)
    with rasterio.open(land_cover) as file:
        step = -(-max(file.shape) // LARGEST_SIDE)
        named, transform = file.read(1)[::step, ::step], file.transform
    image = np.full((*named.shape, 4), (GREY, GREY, GREY, 1.0))
    for index, colour in colours.items():
        image[named == index] = colour
    show_cells(right, image, transform, scene.grid, step)
    right.set_title(f"land cover as mapped by {mapped_by}", fontsize=10)
    right.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0.0,
        frameon=False,
        fontsize=9,
    )
    return figure


def plot_legend(classes: tuple[str, ...]) -> Figure:
    """The colours of all classes that the probe knows, also of those that the map does not show."""
    colours = {index: np.array(colour) / 255 for index, colour in class_colours(classes).items()}
    figure = Figure(figsize=(7, 0.4 + 0.26 * len(classes)), layout="constrained")
    handles = _handles(classes, range(len(classes)), colours)
    figure.legend(handles=handles, loc="center left", frameon=False, fontsize=9)
    return figure


def _handles(
    classes: tuple[str, ...],
    shown: Iterable[int],
    colours: dict[int, np.ndarray],
    shares: dict[str, float] | None = None,
) -> list[Patch]:
    def label(name: str) -> str:
        share = "" if shares is None else " (" + (f"{shares[name]:.1%}" if shares[name] >= 0.001 else "< 0.1%") + ")"
        return "\n".join(wrap(short_name(name, 90) + share, LEGEND_LETTERS))

    return [Patch(facecolor=tuple(colours[k]), edgecolor="0.3", linewidth=0.5, label=label(classes[k])) for k in shown]


def write_class_names(land_cover: Path, classes: tuple[str, ...]) -> list[Path]:
    """Beside a map: GDAL's category names (`.aux.xml`) and a style with names and colours for QGIS (`.qml`)."""
    colours = class_colours(classes)
    classes = tuple(_NO_XML.sub("\ufffd", name) for name in classes)
    names = "".join(f"<Category>{escape(name)}</Category>" for name in classes)
    band = f'<PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand>'
    entries = "".join(
        f'<paletteEntry value={quoteattr(str(k))} label={quoteattr(classes[k])} alpha="255" '
        f'color="#{red:02x}{green:02x}{blue:02x}"/>'
        for k, (red, green, blue, _) in colours.items()
    )
    renderer = '<rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1">'
    style = f"<qgis><pipe>{renderer}<colorPalette>{entries}</colorPalette></rasterrenderer></pipe></qgis>"
    return [
        write_text(land_cover.with_name(f"{land_cover.name}.aux.xml"), f"<PAMDataset>{band}</PAMDataset>\n"),
        write_text(land_cover.with_suffix(".qml"), f"<!DOCTYPE qgis>\n{style}\n"),
    ]
