"""The work of `compute_embed.py`: the splits of a dataset to `.npz` files and their records."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from classification_models.embeddings import X_CHECKSUMS
from configs.build import build_configured_dataset, load_configured_model, result_origin
from configs.schema import Config
from datasets.loader import BatchLoader, Part
from datasets.patches import PatchDataset
from models.inference.embedder import Embedder
from models.inference.runtimes import compiling_asked
from models.moe_mae import MOEMAE
from models.pooling import POOLINGS
from utils.checked_json import write_checked_json
from utils.compilation import Compilation
from utils.devices import mixed_precision, process_device
from utils.errors import DataError, UserError
from utils.files import atomic_path, check_writable, write_checked_npz
from utils.processes import ALONE, Processes
from utils.reporting import reporter

COMPILE_MIN_BATCHES = 2000
"""On a CPU `embed.compile: auto` compiles for so many batches or more."""

COPIED_BYTES = 1 << 22
"""Rows of other processes are copied in pieces of this size."""


class Share(NamedTuple):
    """What one process did of a split."""

    rows_path: str
    """Its vectors, float32, one after another without a header."""
    ids: list[str]
    labels: list[np.ndarray]
    skipped_fill: int


PatchEmbedder = Callable[[Tensor, Tensor | None, Tensor | None, Tensor | None], Tensor]
"""From normalised patches (B, C, H, W), metadata (None: missing), (B, H, W) valid pixels and (B, C) given bands (None:
all) to vectors (B, D)."""


def embed_dataset(
    embedder: PatchEmbedder, loader: BatchLoader, path: Path, split: str, processes: Processes = ALONE
) -> dict[str, Any] | None:
    """Write one split's `.npz`, in memory that does not grow with it.

    Several processes take one block of its batches each; the main one joins their rows, to the same bytes as alone.

    Args:
        embedder: from patches to vectors.
        loader: the split's batches, with labels.
        path: the `.npz`.
        split: names the arrays `x_<split>` and `y_<split>`.
        processes: those that share the work.

    Returns:
        The shapes written, what was left out and why, and checksums; on the main process only.

    Raises:
        DataError: when no patch is left.
        UserError: when the processes do not all write into the same folder.
    """
    # The number of patches is only known at the end (all-fill ones are left out), so rows go to a plain file first.
    with atomic_path(path.with_suffix(".rows"), keep=False) as rows_path:
        share = _embed_share(embedder, loader, rows_path, split, Part(processes.rank, processes.count))
        shares = processes.gather(share)
        written = _join(shares, path, split) if processes.main else None
        processes.wait()  # every process removes its own rows, once they have been read
    return None if written is None else {**written, "skipped_without_labels": loader.dataset.skipped_labels}


def _embed_share(embedder: PatchEmbedder, loader: BatchLoader, rows_path: Path, split: str, part: Part) -> Share:
    ids, labels = [], []
    total = len(range(len(loader))[part.of(len(loader))])
    with rows_path.open("wb") as file:
        for batch in tqdm(loader.batches(part=part), total=total, desc=f"embedding {split}", leave=False, disable=None):
            if batch.ids:
                assert batch.labels is not None  # the splits are read with labels
                vectors = embedder(batch.images, batch.meta, batch.valid, batch.bands).cpu().numpy()
                file.write(np.ascontiguousarray(vectors).data)
                ids += batch.ids
                labels.append(batch.labels.cpu().numpy().astype(np.int16))
    return Share(str(rows_path), ids, labels, loader.skipped_fill)


def _join(shares: list[Share], path: Path, split: str) -> dict[str, Any]:
    """Write the `.npz` of all shares; the first one's file grows to hold all rows."""
    ids = [name for share in shares for name in share.ids]
    if not ids:
        raise DataError(f"{path.name}: no patch of this split has a single valid pixel")
    first, *others = (Path(share.rows_path) for share in shares)
    with first.open("ab") as file:
        for other in others:
            if not other.exists():
                raise UserError(f"{path.parent}: lacks another process's rows; give a folder that all machines share")
            with other.open("rb") as rows:
                shutil.copyfileobj(rows, file, COPIED_BYTES)
    x = np.memmap(first, dtype=np.float32, mode="r").reshape(len(ids), -1)
    y = np.concatenate([labels for share in shares for labels in share.labels])
    checksums = write_checked_npz(path, f"x_{split}", x, {f"y_{split}": y, "ids": np.array(ids)})
    skipped_fill = sum(share.skipped_fill for share in shares)
    shapes = {"x_shape": list(x.shape), "y_shape": list(y.shape)}
    return {**shapes, "skipped_fill": skipped_fill, X_CHECKSUMS: checksums._asdict()}


def embed_splits(config: Config, processes: Processes) -> None:
    """Embed every split of a config and write its record."""
    folder = check_writable(config.embed.out_dir)
    device = process_device(config.model.device, processes)
    data = config.data
    assert data.dataset_path is not None and data.splits is not None  # `REQUIRED`
    model = processes.share(lambda: load_configured_model(config, torch.device("cpu"))).to(device)
    # All splits are checked before the first is embedded; each is let go once it is written.
    datasets = {
        split: build_configured_dataset(config, model.config, data.dataset_path, file, labels=data.missing_labels)
        for split, file in data.splits.items()
    }
    batches = sum(-(-len(dataset) // data.batch_size) for dataset in datasets.values())
    asked, autocast = config.embed.backend, mixed_precision(device, config.embed.amp)
    compile_it = compiling_asked(asked, config.embed.compile)
    embedder = Embedder(
        model,
        config.embed.pool or model.config.pool,
        autocast=autocast,
        compilation=Compilation.chosen(compile_it, device, batches, COMPILE_MIN_BATCHES, processes.say),
        batch_size=data.batch_size,
        backend=asked,
        patches=sum(map(len, datasets.values())),
    )
    for split in data.splits:
        dataset = datasets.pop(split)
        dataset.hold_in_memory()
        loader = BatchLoader(dataset, data.batch_size, data.num_workers, device, data.resident)
        path = folder / f"{config.embed.name}_{split}.npz"
        written = embed_dataset(embedder, loader, path, split, processes)
        if written is not None:
            origin = {**_origin(config, model, dataset, device), "mixed_precision": autocast and str(autocast)}
            origin["backend"] = embedder.backend
            write_checked_json(path.with_suffix(".json"), {"split": split, **written, **origin})
            reporter.info(_summary(path, written, dataset.kind))


def _origin(config: Config, model: MOEMAE, dataset: PatchDataset, device: torch.device) -> dict[str, Any]:
    pool = config.embed.pool or model.config.pool
    return {
        **result_origin(config, model, dataset, device, "embed"),
        "asked": config.model_dump(mode="json"),
        "pool": pool,
        "tokens": POOLINGS[pool].tokens_used(model.config),
        "width": model.config.embed_dim,
        "before_final_norm": True,
        "routing_noise": False,
        "classes": list(dataset.classes),
        "multilabel": dataset.multilabel,
    }


def _summary(path: Path, written: dict[str, Any], kind: str) -> str:
    left_out = {
        "all-fill": written["skipped_fill"],
        "without a label file": len(written["skipped_without_labels"]),
    }
    said = "".join(f", {count} {why} left out" for why, count in left_out.items() if count)
    rows, width = written["x_shape"]
    return f"{path}: {rows} {kind} x {width} numbers{said}"
