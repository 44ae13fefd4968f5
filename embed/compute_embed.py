"""A dataset to embeddings: `python -m embed.compute_embed --config_yaml configs/embed_bigearthnet.yaml`.

Several processes (`torchrun --nproc_per_node=N -m embed.compute_embed …`) share every split.

For every split one `<name>_<split>.npz` (`x_<split>` float32 (N, D), `y_<split>` int16, `ids`) and a JSON beside it
that says where the numbers come from. The embeddings are the tokens before the final norm, without routing noise.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from utils.arguments import config_parser
from utils.errors import run_script

if TYPE_CHECKING:
    from configs.schema import Config

REQUIRED = ("model.checkpoint_path", "data.dataset_path", "data.splits")
"""Keys without which there is nothing to embed."""


def main(argv: list[str] | None = None) -> int:
    """Validate the config, embed every split; returns the exit code."""
    parser = config_parser("Compute embeddings of every split of a dataset.", reads="sections model, data, embed")
    arguments = parser.parse_args(argv)
    from configs.schema import read_config
    from embed.dataset import embed_splits
    from utils.processes import joined_processes

    with joined_processes() as processes:
        config = processes.share(lambda: read_config(arguments.config_yaml, arguments.overrides, REQUIRED))
        embed_splits(config, processes)
    return 0


def embedding_files(config_yaml: str, overrides: list[str]) -> dict[str, Path]:
    """The `.npz` of every split of a config, embedding first unless all are there and made alike.

    Args:
        config_yaml: a configuration of this script.
        overrides: `key.sub=value` texts.

    Returns:
        Split name to file.
    """
    from configs.schema import read_config

    config = read_config(config_yaml, overrides, REQUIRED)
    folder = Path(config.embed.out_dir)
    assert config.data.splits is not None  # `REQUIRED`
    files = {split: folder / f"{config.embed.name}_{split}.npz" for split in config.data.splits}
    if not all(path.exists() and _made_alike(path.with_suffix(".json"), config) for path in files.values()):
        main(["--config_yaml", config_yaml, *(word for text in overrides for word in ("--set", text))])
    return files


def _made_alike(record: Path, config: "Config") -> bool:
    """Whether a file's JSON says that it was made by this config and these weights."""
    from configs.build import configured_checkpoint
    from utils.files import sha256

    try:
        made = json.loads(record.read_text(encoding="utf-8"))
        same_weights = made["checkpoint"]["sha256"] == sha256(configured_checkpoint(config))
        made["asked"]["embed"].setdefault("backend", "torch")  # files that are older than the key
        return same_weights and made["asked"] == config.model_dump(mode="json")
    except (OSError, ValueError, KeyError, TypeError):
        return False


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]), several=True)
