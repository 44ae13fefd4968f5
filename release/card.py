"""The model card of a release: architecture, provenance, scores, and how to use the weights."""

from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from models.config import ModelConfig
from models.weights_folder import CONFIG_FILE, WEIGHTS_FILE
from release.record import Record
from utils.metadata import Acquisitions, AcquisitionTime, metadata_columns, select_fields, units_of
from utils.sensors import OLI

NOT_RECORDED = "not recorded"
PAPER = "https://arxiv.org/abs/2509.10919"


class Program(NamedTuple):
    """A program that was written and checked."""

    file: str
    difference: float
    """The greatest from the model's own output."""


class Release(NamedTuple):
    """Everything that a card states."""

    config: ModelConfig
    record: Record
    parameters: int
    pool: str
    statistics: str
    width: int
    programs: tuple[Program, ...]
    license: str | None


def write_card(path: Path, release: Release) -> None:
    """Write the card."""
    sections = (_front(release), _what(release), _use(release), _training(release), _scores(release), _files(release))
    path.write_text("\n".join(sections), encoding="utf-8")


def _front(release: Release) -> str:
    lines = ["---", *([f"license: {release.license}"] if release.license else [])]
    return "\n".join([*lines, "tags: [landsat, earth-observation, masked-autoencoder, mixture-of-experts]", "---", ""])


def _what(release: Release) -> str:
    config, record = release.config, release.record
    mode = "as the authors' released weights" if config.published_behaviour else "as the paper"
    mode += f" (published_behaviour: {str(config.published_behaviour).lower()})"
    rows = {
        "model": f"MoE-MAE, size {config.size}, {release.parameters:,} parameters, {mode}",
        "input": f"{', '.join(OLI.bands)} of Landsat 8 or 9, Collection-2 Level-2 numbers as stored, "
        f"{config.img_size} x {config.img_size} pixels of 30 m; 0 in all bands is fill",
        "metadata": f"{units_of(config.meta_fields) or 'none'}; each may be missing",
        "output of the programs": f"{release.width} numbers, pool `{release.pool}`, statistics `{release.statistics}`",
        "made from": f"`{record.file}`, sha256 `{record.sha256}`",
        "licence": release.license or NOT_RECORDED,
    }
    return "\n".join(
        [
            f"# MoE-MAE for Landsat, size {config.size}",
            "",
            f"An encoder of Landsat patches with their time and place, after [arXiv:2509.10919]({PAPER}).",
            "",
            _table(("", ""), rows.items()),
        ]
    )


def _use(release: Release) -> str:
    lines = ["## Use", "", "From the project's folder, with this folder's path or its id on the Hugging Face hub:", ""]
    lines += [
        "```python",
        "from models import MOEMAE",
        "",
        'model = MOEMAE.from_pretrained("path/to/this/folder")',
        f'vectors = model.embed(pixels, when="2017-06-13T10:10:31", lat=48.2, lon=16.4, pool="{release.pool}")',
        "```",
        "",
    ]
    onnx = [program.file for program in release.programs if program.file.endswith(".onnx")]
    if onnx:
        remark = "" if not release.config.published_behaviour else "  # as trained: hour // 10 is taken inside"
        lines += [
            "Without PyTorch and without the project, with numpy and onnxruntime:",
            "",
            "```python",
            "import numpy as np",
            "import onnxruntime",
            "",
            f'session = onnxruntime.InferenceSession("{onnx[0]}")',
            "pixels = np.full((2, 7, 40, 40), 9000, np.int32)  # digital numbers of SR_B1..SR_B7",
            f"metadata = np.array({_example_rows(release.config)}, np.float32){remark}",
            'vectors = session.run(None, {"pixels": pixels, "metadata": metadata})[0]',
            "```",
            "",
        ]
    return "\n".join(lines)


def _example_rows(config: ModelConfig) -> str:
    """Metadata of two patches as Python writes it: what is known of one, and nothing."""
    known = AcquisitionTime.at(datetime(2017, 6, 13, 10, 10, 31))
    row = select_fields(metadata_columns(Acquisitions.of([known], 48.2, 16.4)), config.meta_fields)[0]
    return f"[[{', '.join(f'{value:.6g}' for value in row)}], [np.nan] * {len(row)}]"


def _training(release: Release) -> str:
    record = release.record
    lines = ["## Training", "", f"Trained on: {record.trained_on or NOT_RECORDED}.", ""]
    if record.source:
        lines += [f"Source: {record.source}.", ""]
    lines += [f"Note: {note}.\n" for note in record.notes]
    if record.training:
        lines += [_table(("setting", "value"), record.training.items())]
    else:
        lines += [f"Settings of the training: {NOT_RECORDED}.", ""]
    if record.commands:
        lines += ["Commands:", "", "```", *record.commands, "```", ""]
    return "\n".join(lines)


def _scores(release: Release) -> str:
    scores = release.record.scores
    if not scores:
        return f"## Scores\n\nMeasured scores of these weights: {NOT_RECORDED}.\n"
    rows = [(score.on, score.name, f"{score.value:.4g}", score.source) for score in scores]
    return "\n".join(["## Scores", "", _table(("on", "score", "value", "from"), rows)])


def _files(release: Release) -> str:
    rows = [
        (f"`{WEIGHTS_FILE}`", "weights, bit for bit those of the checkpoint"),
        (f"`{CONFIG_FILE}`", "what `MOEMAE.from_pretrained` needs, and the programs' inputs and statistics"),
    ]
    rows += [
        (
            f"`{program.file}`",
            f"program; differs from the model by at most {program.difference:.1e} on synthetic patches",
        )
        for program in release.programs
    ]
    return "\n".join(["## Files", "", "None of them holds a pickle.", "", _table(("file", "what"), rows)])


def _table(header: tuple[str, ...], rows: Any) -> str:
    cells = [header, ["---"] * len(header), *rows]
    return (
        "\n".join(
            "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in row) + " |" for row in cells
        )
        + "\n"
    )
