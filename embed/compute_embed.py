"""A dataset to embeddings: `python -m embed.compute_embed --config_yaml configs/embed_bigearthnet.yaml`.

For every split one `<name>_<split>.npz` (`x_<split>` float32 (N, D), `y_<split>` int16, `ids`) and a JSON beside it
that says where the numbers come from. The embeddings are the tokens before the final norm, without routing noise.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from configs.build import build_configured_dataset, load_configured_model, result_origin
from configs.schema import Config, read_config
from datasets.loader import BatchLoader
from datasets.patches import PatchDataset
from models.config import CLS_INDEX, NUM_PREFIX
from models.moe_mae import MOEMAE, Encoded
from utils.config import config_parser
from utils.devices import select_device
from utils.errors import DataError, run_script
from utils.files import atomic_path, check_writable, sha256, write_json, write_npz

REQUIRED = ("model.checkpoint_path", "data.dataset_path", "data.splits")
"""Keys without which there is nothing to embed."""


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
        write_npz(path, {f"x_{split}": x, f"y_{split}": y, "ids": np.array(ids)})
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
    config = read_config(arguments.config_yaml, arguments.overrides, REQUIRED)
    folder = check_writable(config.embed.out_dir)
    device = select_device(config.model.device)
    data = config.data
    model = load_configured_model(config, device)
    # All splits are checked before the first is embedded; each is let go once it is written.
    datasets = {
        split: build_configured_dataset(config, model.config, data.dataset_path, file, labels=data.missing_labels)
        for split, file in data.splits.items()
    }
    for split in data.splits:
        dataset = datasets.pop(split)
        dataset.hold_in_memory()
        loader = BatchLoader(dataset, data.batch_size, data.num_workers, device)
        path = folder / f"{config.embed.name}_{split}.npz"
        written = embed_dataset(model, loader, config.embed.pool, path, split)
        write_json(path.with_suffix(".json"), {"split": split, **written, **_origin(config, model, dataset, device)})
        print(_summary(path, written, dataset.kind))
    return 0


def embedding_files(config_yaml: str, overrides: list[str]) -> dict[str, Path]:
    """The `.npz` of every split of a config, embedding first unless all are there and made alike.

    Args:
        config_yaml: a configuration of this script.
        overrides: `key.sub=value` texts.

    Returns:
        Split name to file.
    """
    config = read_config(config_yaml, overrides, REQUIRED)
    folder = Path(config.embed.out_dir)
    files = {split: folder / f"{config.embed.name}_{split}.npz" for split in config.data.splits}
    if not all(path.exists() and _made_alike(path.with_suffix(".json"), config) for path in files.values()):
        main(["--config_yaml", config_yaml, *(word for text in overrides for word in ("--set", text))])
    return files


def _made_alike(record: Path, config: Config) -> bool:
    """Whether a file's JSON says that it was made by this config and these weights."""
    try:
        made = json.loads(record.read_text(encoding="utf-8"))
        same_weights = made["checkpoint"]["sha256"] == sha256(config.model.checkpoint_path)
        return same_weights and made["asked"] == config.model_dump(mode="json")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _origin(config: Config, model: MOEMAE, dataset: PatchDataset, device: torch.device) -> dict[str, Any]:
    return {
        **result_origin(config, model.config, dataset, device, "embed"),
        "asked": config.model_dump(mode="json"),
        "pool": config.embed.pool,
        "tokens": model.config.num_tokens if config.embed.pool == "all" else 1,
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


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
