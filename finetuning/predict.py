"""A fine-tuned run on a scene: classes and probabilities as GeoTIFFs at 30 m, with names and colours."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.finetuning import SEGMENTATION, LabelledSceneSection
from finetuning.decoder import DenseDecoder, TokenLinear
from finetuning.folder import Finetuned, load_finetuned
from finetuning.mapping import Seen, no_tokens, probabilities, token_rows
from finetuning.sources import Source, scene_source
from scenes.input.checks import check_numbers
from scenes.input.product import Scene
from scenes.input.reader import SceneReader
from scenes.outputs import OutputSet
from scenes.products.geotiffs import Layer, write_cog
from scenes.products.land_cover import NO_CLASS, class_colours, plot_land_cover, plot_legend, write_class_names
from scenes.windows import make_frame
from transformation.transformer import ZScoreNormalize
from utils.analysis_utils import save_figure
from utils.data_config import DATASETS
from utils.errors import ConfigError, DataError
from utils.files import check_writable, sha256
from utils.provenance import provenance
from utils.reporting import reporter
from utils.sensors import OLI

RECORD = "prediction.json"
KNOWN = ("classes.tif", "classes.tif.aux.xml", "classes.qml", "classes.png", "classes_legend.png",
         "probabilities.tif", RECORD)  # fmt: skip
UNSEEN = float("nan")
"""Of probabilities, where the satellite did not see the ground."""


def predict(
    section: LabelledSceneSection, run: Path, out: Path, device: torch.device, *, write_probabilities: bool = True
) -> dict[str, Any]:
    """Map a scene.

    Args:
        section: where it is, and how its numbers are read; `labels` are not used.
        run: folder of the run.
        out: folder of the results, which are all there at the end or as they were before.
        device: that computes.
        write_probabilities: beside the classes.

    Returns:
        What `prediction.json` says.

    Raises:
        UserError: for a run that makes no maps, and whatever is wrong with the scene.
    """
    started = time.perf_counter()
    tuned = load_finetuned(run, device)
    if tuned.task != SEGMENTATION:
        raise ConfigError(f"--run {run}: is of task {tuned.task}, maps need one of task {SEGMENTATION}")
    outputs = OutputSet(check_writable(out), [tuned.path], RECORD, KNOWN)
    statistics = DATASETS[tuned.about["statistics"]].STATISTICS
    source = scene_source(section, statistics)
    _say(source, tuned)
    try:
        shares = _write(outputs, source, tuned, statistics_of(tuned), write_probabilities)
    except BaseException:  # nothing of it is taken up again
        outputs.discard()
        raise
    record = {
        "scene": source.name,
        "simulated": source.simulated,
        "classes": list(tuned.classes),
        "shares": shares,
        "run": {"weights": tuned.path.name, "sha256": sha256(tuned.path), "about": tuned.about},
        "missing_bands": list(source.missing),
        "metadata": source.metadata.record(tuned.model.config),
        "seconds": round(time.perf_counter() - started, 2),
        "provenance": provenance(device),
    }
    outputs.publish(record)
    reporter.info(f"files        {out}: {', '.join(sorted(path.name for path in out.iterdir() if path.name in KNOWN))}")
    return record


def statistics_of(tuned: Finetuned) -> ZScoreNormalize:
    """The normalisation that a run was trained with."""
    return ZScoreNormalize(DATASETS[tuned.about["statistics"]].STATISTICS)


def map_probabilities(source: Source, tuned: Finetuned, normalize: ZScoreNormalize) -> Iterator[np.ndarray]:
    """Probabilities of a scene, (K, rows, width) float32 from top to bottom; NaN where nothing is seen."""
    model, head = tuned.model, tuned.head
    if not isinstance(head, DenseDecoder | TokenLinear):
        raise ConfigError(f"{tuned.path}: its head makes no maps")
    config = model.config
    frame = make_frame(source.grid, config.img_size, config.patch_size, tuned.about["stride"], config.patch_size)
    with source.open() as reader:
        if isinstance(reader, SceneReader):
            for doubt in check_numbers(reader):
                reporter.info(f"note         {doubt}")
        seen = Seen(reader, frame, normalize, source.metadata, source.bands)
        tokens = token_rows(model, seen) if head.sizes.tokens else no_tokens(frame, head.sizes.width)
        yield from probabilities(head, seen, tokens, tuned.about["symmetries"])


def _say(source: Source, tuned: Finetuned) -> None:
    kind = "simulated scene" if source.simulated else "scene"
    reporter.info(f"{kind:12s} {source.name}: {source.grid.height:,} x {source.grid.width:,} pixels")
    for note in source.of.notes if isinstance(source.of, Scene) else ():
        reporter.info(f"note         {note}")
    if set(source.missing) != set(tuned.about["missing_bands"]):
        trained, here = (
            ", ".join(OLI.common[OLI.bands.index(band)] for band in bands) or "none"
            for bands in (tuned.about["missing_bands"], source.missing)
        )
        reporter.warning(
            f"note: the run was trained on scenes that lack other bands ({trained}) than this one ({here})"
        )


def _write(
    outputs: OutputSet, source: Source, tuned: Finetuned, normalize: ZScoreNormalize, write_probabilities: bool
) -> dict[str, float]:
    """All files but the record; returns the share of the visible pixels by class name."""
    found: list[np.ndarray] = []

    def stripes() -> Iterator[np.ndarray]:
        for stripe in map_probabilities(source, tuned, normalize):
            hidden = np.isnan(stripe).any(axis=0)
            classes = np.where(hidden, 0, stripe.argmax(axis=0)).astype(np.uint8)
            classes[hidden] = NO_CLASS
            found.append(classes)
            yield stripe

    names, grid = tuned.classes, source.grid
    tags = {
        "MOEMAE_CLASSES": json.dumps(names),
        "classes": json.dumps(names),
        "MOEMAE_SIMULATED": str(source.simulated),
    }
    form = {"height": grid.height, "width": grid.width, "crs": grid.crs, "transform": grid.transform, "tags": tags}
    if write_probabilities:
        layer = Layer(bands=names, dtype="float32", nodata=UNSEEN, **form)
        write_cog(outputs.new("probabilities.tif"), layer, stripes(), outputs.scratch)
    else:
        for _ in stripes():
            pass
    classes = np.concatenate(found)
    counts = np.bincount(classes[classes != NO_CLASS], minlength=len(names))
    if not counts.sum():
        raise DataError(f"{source.name}: no pixel is visible (fill, cloud, shadow); give another scene")
    layer = Layer(
        bands=("class",), dtype="uint8", nodata=NO_CLASS, resampling="mode", colours=class_colours(names), **form
    )
    path = write_cog(outputs.new("classes.tif"), layer, iter([classes[None]]), outputs.scratch)
    write_class_names(path, names)
    shares = {name: float(count / counts.sum()) for name, count in zip(names, counts, strict=True)}
    if isinstance(source.of, Scene):
        figure = plot_land_cover(source.of, path, names, shares, "the fine-tuned head")
        save_figure(figure, path.with_suffix(".png"))
    save_figure(plot_legend(names), path.with_name("classes_legend.png"))
    return shares
