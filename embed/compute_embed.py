"""A dataset to embeddings: `python -m embed.compute_embed --config_yaml configs/embed_bigearthnet.yaml`.

For every split one `<name>_<split>.npz` (`x_<split>` float32 (N, D), `y_<split>` int16, `ids`) and a JSON beside it
that says where the numbers come from. The embeddings are the tokens before the final norm, without routing noise.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from configs.schema import Config, read_config
from datasets.loader import MEMORY_LIMIT, BatchLoader, build_dataset
from datasets.patches import PatchDataset
from models.checkpoint import load_model
from models.config import CLS_INDEX, NUM_PREFIX
from models.moe_mae import MOEMAE, Encoded
from utils.config import config_parser
from utils.devices import select_device
from utils.errors import DataError, run_script
from utils.files import atomic_path, check_writable, sha256, write_json
from utils.provenance import provenance


def pool_tokens(encoded: Encoded, pool: str) -> Tensor:
    """Tokens before the final norm to one vector a patch.

    Args:
        encoded: of B whole patches (T = 105 tokens of width W).
        pool: "all" flattens to (B, T * W); "mean" averages all tokens, "patch_mean" the patch tokens, "cls" takes the
            CLS token: (B, W).
    """
    tokens = encoded.pre_norm.float()
    if pool == "all":
        return tokens.flatten(1)
    if pool == "mean":
        return tokens.mean(dim=1)
    if pool == "patch_mean":
        return tokens[:, NUM_PREFIX:].mean(dim=1)
    if pool == "cls":
        return tokens[:, CLS_INDEX]
    raise ValueError(f"unknown pool {pool!r}; use all, mean, patch_mean or cls")


@torch.no_grad()
def embed_dataset(model: MOEMAE, loader: BatchLoader, pool: str, path: Path, split: str) -> dict[str, Any]:
    """Write one split's `.npz`, in memory that does not grow with it.

    Args:
        model: in evaluation mode.
        loader: the split's batches, with labels.
        pool: see `pool_tokens`.
        path: the `.npz`.
        split: names the arrays `x_<split>` and `y_<split>`.

    Returns:
        The shapes written and what was left out and why.

    Raises:
        DataError: when no patch is left.
    """
    ids, labels, rows = [], [], 0
    # The number of patches is only known at the end (all-fill ones are left out), so rows go to a plain file first.
    with atomic_path(path.with_suffix(".rows"), keep=False) as rows_path:
        with rows_path.open("wb") as file:
            for batch in tqdm(
                loader.batches(), total=len(loader), desc=f"embedding {split}", leave=False, disable=None
            ):
                if batch.ids:
                    vectors = pool_tokens(model.encode(batch.images, batch.meta), pool).cpu().numpy()
                    file.write(np.ascontiguousarray(vectors))
                    ids += batch.ids
                    labels.append(batch.labels.cpu())
                    rows += len(vectors)
        if not rows:
            raise DataError(f"{path.name}: no patch of this split has a single valid pixel")
        width = rows_path.stat().st_size // (4 * rows)
        x = np.memmap(rows_path, dtype=np.float32, mode="r", shape=(rows, width))
        y = torch.cat(labels).numpy().astype(np.int16)
        with atomic_path(path) as temporary:
            np.savez(temporary, **{f"x_{split}": x, f"y_{split}": y, "ids": np.array(ids)})
    return {
        "x_shape": [rows, width],
        "y_shape": list(y.shape),
        "skipped_fill": loader.skipped_fill,
        "skipped_without_labels": loader.dataset.skipped_labels,
    }


def main(argv: list[str] | None = None) -> int:
    """Validate the config, embed every split; returns the exit code."""
    parser = config_parser("Compute embeddings of every split of a dataset.", reads="sections model, data, embed")
    arguments = parser.parse_args(argv)
    required = ("model.checkpoint_path", "data.dataset_path", "data.splits")
    config = read_config(arguments.config_yaml, arguments.overrides, required)
    folder = check_writable(config.embed.out_dir)
    device = select_device(config.model.device)
    section = config.model
    model = load_model(
        section.checkpoint_path, {"size": section.size, **section.numbers()}, config.published_behaviour, device
    )
    datasets = {split: _dataset(config, model, file) for split, file in config.data.splits.items()}
    for split, dataset in datasets.items():
        dataset.hold_in_memory(MEMORY_LIMIT)
        loader = BatchLoader(dataset, config.data.batch_size, config.data.num_workers, device)
        path = folder / f"{config.embed.name}_{split}.npz"
        written = embed_dataset(model, loader, config.embed.pool, path, split)
        write_json(path.with_suffix(".json"), {"split": split, **written, **_origin(config, model, dataset, device)})
        print(_summary(path, written))
    return 0


def _dataset(config: Config, model: MOEMAE, split_file: str) -> PatchDataset:
    data = config.data
    return build_dataset(
        data.dataset,
        data.dataset_path,
        split_file,
        labels=data.missing_labels,
        image_size=model.config.img_size,
        crop=data.crop,
        statistics=data.statistics,
        published_behaviour=model.config.published_behaviour,
    )


def _origin(config: Config, model: MOEMAE, dataset: PatchDataset, device: torch.device) -> dict[str, Any]:
    checkpoint = Path(config.model.checkpoint_path)
    return {
        "checkpoint": {"path": str(checkpoint), "sha256": sha256(checkpoint)},
        "pool": config.embed.pool,
        "tokens": model.config.num_tokens if config.embed.pool == "all" else 1,
        "width": model.config.embed_dim,
        "before_final_norm": True,
        "routing_noise": False,
        "published_behaviour": model.config.published_behaviour,
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "multilabel": dataset.multilabel,
        "dataset_fingerprint": dataset.fingerprint(),
        "config": config.model_dump(),
        "provenance": provenance(device),
    }


def _summary(path: Path, written: dict[str, Any]) -> str:
    left_out = {
        "all-fill": written["skipped_fill"],
        "without a label file": len(written["skipped_without_labels"]),
    }
    said = "".join(f", {count} {why} left out" for why, count in left_out.items() if count)
    rows, width = written["x_shape"]
    return f"{path}: {rows} patches x {width} numbers{said}"


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
