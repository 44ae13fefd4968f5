"""A checkpoint to a folder for others: weights without pickle, programs, and a card that says what they are."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from models.checkpoint import read_checkpoint
from models.moe_mae import MOEMAE, count_parameters
from models.pooling import vector_width
from models.pretrained import weights_path
from models.weights_folder import MADE_FROM, read_weights_folder, require_safetensors, write_weights_folder
from release.card import Program, Release, write_card
from release.check import TOLERANCE, check_patches, largest_difference
from release.folder import atomic_folder, require_new
from release.formats import FORMATS, require_packages
from release.model_code import write_model_code
from release.pickles import require_no_pickle
from release.program import INPUTS, OUTPUT, trace
from release.record import Record, collect_record
from utils.data_config import DATASETS
from utils.errors import CheckpointError, ConfigError
from utils.files import sha256
from utils.metadata import units_of
from utils.reporting import reporter
from utils.sensors import OLI

CARD = "README.md"


class ExportSettings(NamedTuple):
    """What to write."""

    checkpoint: Path
    out: Path
    pool: str | None
    """None is the weights' own."""
    statistics: str
    programs: tuple[str, ...]
    """Keys of `FORMATS`."""
    scores: tuple[Path, ...] = ()
    """JSON files with measured scores of these weights."""
    license: str | None = None


def export(settings: ExportSettings) -> None:
    """Write the folder, everything in it checked against the model, or nothing.

    Raises:
        UserError: one line, for what is in the way, damaged, missing, or differs.
    """
    require_new(settings.out)
    require_safetensors(settings.out)
    require_packages(list(settings.programs))
    checkpoint = read_checkpoint(weights_path(settings.checkpoint))
    model = checkpoint.build()
    if checkpoint.published:
        reporter.info(f"{settings.checkpoint}: a published checkpoint; exported with published_behaviour: true")
    if model.config.in_channels != len(OLI.bands):
        raise ConfigError(
            f"{settings.checkpoint}: takes {model.config.in_channels} bands; only {len(OLI.bands)} are known"
        )
    record = collect_record(checkpoint, list(settings.scores))
    with atomic_folder(settings.out) as folder:
        pool = settings.pool or model.config.pool
        programs = _write_programs(model, settings, pool, folder)
        about = _about(model, settings, pool, programs, folder, record)
        write_weights_folder(folder, model, {**about, **write_model_code(folder)})
        _require_same_weights(model, folder)
        width = vector_width(model.config, pool)
        facts = (count_parameters(model), pool, settings.statistics, width, programs, settings.license)
        write_card(folder / CARD, Release(model.config, record, *facts))
        require_no_pickle(folder)
    reporter.info(f"written: {settings.out}")
    code = sorted(settings.out.glob("*.py"))
    for path in sorted(set(settings.out.iterdir()).difference(code)):
        reporter.info(f"  {path.name:24s} {path.stat().st_size:11,} bytes")
    reporter.info(f"  {f'{len(code)} x *.py':24s} {sum(path.stat().st_size for path in code):11,} bytes")


def _write_programs(model: MOEMAE, settings: ExportSettings, pool: str, folder: Path) -> tuple[Program, ...]:
    if not settings.programs:
        return ()
    reporter.info("tracing the model (half a minute)")
    traced = trace(model, pool, settings.statistics)
    patches = check_patches(model, pool, settings.statistics)
    written = []
    for name in settings.programs:
        form = FORMATS[name]
        path = folder / f"embed_{pool}{form.ending}"
        form.write(traced, path)
        difference = largest_difference(form.load(path), patches)
        reporter.info(f"{path.name}: differs from PyTorch by at most {difference:.1e} (allowed {TOLERANCE:g})")
        written.append(Program(path.name, difference))
    return tuple(written)


def _about(
    model: MOEMAE, settings: ExportSettings, pool: str, programs: tuple[Program, ...], folder: Path, record: Record
) -> dict[str, Any]:
    """What `config.json` says beside the model: its origin, and enough to run the programs without this project."""
    side, numbers = model.config.img_size, DATASETS[settings.statistics].STATISTICS
    return {
        MADE_FROM: {"file": record.file, "sha256": record.sha256},
        "programs": {
            program.file: {"sha256": sha256(folder / program.file), "largest_difference": program.difference}
            for program in programs
        },
        "inputs": {
            INPUTS[0]: {
                "shape": ["patches", len(OLI.bands), side, side],
                "dtype": "int32",
                "bands": list(OLI.bands),
                "values": "Landsat 8 or 9 Collection-2 Level-2 numbers as stored; 0 in any band is fill",
            },
            INPUTS[1]: {
                "shape": ["patches", len(model.config.meta_fields)],
                "dtype": "float32",
                "columns": list(model.config.meta_fields),
                "values": f"{units_of(model.config.meta_fields)}; of the patch centre; NaN is not known",
            },
        },
        "output": {"name": OUTPUT, "pool": pool, "width": vector_width(model.config, pool)},
        "statistics": {"name": settings.statistics, "mean": list(numbers.mean), "std": list(numbers.std)},
    }


def _require_same_weights(model: MOEMAE, folder: Path) -> None:
    """Read the weights back and compare every bit."""
    again = read_weights_folder(folder).build()
    before, after = model.state_dict(), again.state_dict()
    same = before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    if not same or again.config != model.config:
        raise CheckpointError(f"{folder}: the weights did not read back as they were written; check the disk")
