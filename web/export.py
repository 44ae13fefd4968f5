"""The page as a folder: the program for maps, its description, the probe as plain numbers, runtime and source."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from classification_models.linear_head import LinearHead
from explorer.page import ASSETS as SHARED_ASSETS
from models.config import ModelConfig
from models.moe_mae import MOEMAE
from models.pooling import MAP_POOLINGS, vector_width
from models.pretrained import load_with_path
from release.check import TOLERANCE, check_patches, largest_difference
from release.folder import atomic_folder, require_new
from release.formats import load_onnx, missing_packages, write_onnx
from release.program import MapProgram, trace
from scenes.choices import Choices, SceneSettings, choose
from scenes.products.land_cover import Probe, class_colours, load_probe
from utils.errors import ConfigError
from utils.files import sha256, write_json
from utils.reporting import reporter
from utils.sensors import OLI
from web.runtime import PACKAGES, place_runtime

ASSETS = Path(__file__).parent / "assets"
PROGRAM, MODEL, PROBE, RUNTIME = "map.onnx", "model.json", "land_cover.json", "runtime"
DEFAULT_SIDE = 20
"""Pixels from window to window, and of a cell's side, unless a user chooses others: one to two minutes for 12 km."""
LARGEST_FOLDER = 30_000_000
"""Bytes that a visitor should have to load."""
CERTAIN = 1e9
"""A logit in the place of an infinite one, which JSON does not have: of a label that never changed in training."""


class WebSettings(NamedTuple):
    """What to write."""

    checkpoint: Path
    folder: Path
    probe: Path | None = None
    runtime: Path | None = None
    """A folder with npm's packages; None fetches them."""
    pool: str | None = None
    statistics: str | None = None
    """Both None: as the probe's embeddings were made, else as the weights say."""


def export_web(settings: WebSettings) -> None:
    """Write the folder, the program in it checked against the model, or nothing.

    Raises:
        UserError: one line, for what is in the way, damaged, missing, or differs.
    """
    require_new(settings.folder)
    if missing := missing_packages("onnx"):
        raise ConfigError(f"--web: needs the packages {', '.join(missing)}; pip install -r requirements-export.txt")
    model, weights = load_with_path(settings.checkpoint)
    if model.config.in_channels != len(OLI.bands):
        raise ConfigError(f"{settings.checkpoint}: takes {model.config.in_channels} bands, not Landsat's seven")
    if settings.pool not in (None, *MAP_POOLINGS):
        raise ConfigError(f"--pool {settings.pool}: cells of a map have none; use {', '.join(MAP_POOLINGS)}")
    probe = load_probe(settings.probe, model.config) if settings.probe else None
    asked = SceneSettings(
        checkpoint=settings.checkpoint,
        out=settings.folder,
        pool=settings.pool,
        statistics=settings.statistics,
        probe=settings.probe,
    )
    choices = choose(asked, probe, model.config, weights)
    with atomic_folder(settings.folder) as folder:
        (folder / RUNTIME).mkdir()
        place_runtime(folder / RUNTIME, settings.runtime)
        difference = _write_program(model, choices, folder / PROGRAM)
        write_json(folder / MODEL, _about(model.config, weights, choices, asked.min_clear, probe, difference))
        if probe:
            write_json(folder / PROBE, plain_probe(probe))
        shutil.copytree(ASSETS, folder, dirs_exist_ok=True)
        shutil.copyfile(SHARED_ASSETS / "base.css", folder / "base.css")
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    reporter.info(f"written: {settings.folder}, {size / 1e6:.1f} MB")
    if size > LARGEST_FOLDER:
        reporter.info(f"note: more than {LARGEST_FOLDER / 1e6:.0f} MB to load for every visitor; smaller weights help")
    reporter.info(f"show it: python -m http.server --directory {settings.folder}, then http://localhost:8000")


def _write_program(model: MOEMAE, choices: Choices, path: Path) -> float:
    """Write the program and return by how much the mean over its patches differs from the pooled vector."""
    reporter.info("tracing the model (half a minute)")
    write_onnx(trace(model, choices.pool, choices.statistics, MapProgram), path)
    run = load_onnx(path)
    patches = check_patches(model, choices.pool, choices.statistics)
    difference = largest_difference(lambda pixels, metadata: run(pixels, metadata).mean(axis=1), patches)
    reporter.info(f"{path.name}: differs from PyTorch by at most {difference:.1e} (allowed {TOLERANCE:g})")
    return difference


def _about(
    config: ModelConfig, weights: Path, choices: Choices, min_clear: float, probe: Probe | None, difference: float
) -> dict[str, Any]:
    """What the page has to know of the model."""
    digest = sha256(weights)
    width = vector_width(config, choices.pool)
    sides = [side for side in range(config.img_size, 0, -config.patch_size) if config.img_size % side == 0]
    return {
        "about": f"{weights.name}, {width} numbers a cell ({choices.pool}), SHA-256 {digest[:12]}…",
        "weights": {"file": weights.name, "sha256": digest},
        "program": PROGRAM,
        "largest_difference": difference,
        "probe": PROBE if probe else None,
        "window": config.img_size,
        "patch": config.patch_size,
        "width": width,
        "pool": choices.pool,
        "fields": list(config.meta_fields),
        "conditioned": choices.conditioned,
        "statistics": choices.statistics,
        "least_clear": min_clear,
        "sides": sides,
        "default_side": DEFAULT_SIDE if DEFAULT_SIDE in sides else sides[0],
        "runtime": {package.wanted: package.license for package in PACKAGES},
    }


def plain_probe(probe: Probe) -> dict[str, Any]:
    """A probe as JSON: class probabilities are the sigmoid of each logit, or the softmax of all."""
    head = _with_a_row_per_class(probe.model.head)
    width = head.coef.shape[1]
    mean = np.zeros(width) if head.mean is None else head.mean
    scale = np.ones(width) if head.scale is None else head.scale
    colours = class_colours(probe.classes)
    return {
        "file": probe.path.name,
        "multilabel": bool(probe.model.multilabel),
        "classes": list(probe.classes),
        "colours": ["#{:02x}{:02x}{:02x}".format(*colours[index][:3]) for index in range(len(probe.classes))],
        "columns": [int(index) for index in probe.model.classes_],
        "coef": head.coef.tolist(),
        "intercept": head.intercept.clip(-CERTAIN, CERTAIN).tolist(),
        "mean": mean.tolist(),
        "scale": scale.tolist(),
    }


def _with_a_row_per_class(head: LinearHead) -> LinearHead:
    """Two classes have one row: the sigmoid of its logit is the softmax of 0 and it."""
    if len(head.coef) == len(head.classes):
        return head
    coef, intercept = (np.concatenate([np.zeros_like(part), part]) for part in (head.coef, head.intercept))
    return head._replace(coef=coef, intercept=intercept)
