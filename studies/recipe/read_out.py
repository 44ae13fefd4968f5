"""How good embeddings are that are read after each block: `python -m studies.recipe.read_out --out DIR`.

The same simulated patches are embedded after every encoder block in turn (`ModelConfig.read_depth`), with and without
metadata, and scored by a linear probe and by kNN-5 of standardised numbers. Differences are to the last block.
"""

import csv
import io
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from studies.recipe.sensors import plain, shown
from utils.arguments import ArgumentParser, user_path
from utils.errors import ConfigError, run_script
from utils.markdown import markdown_table
from utils.reporting import reporter

PROTOCOLS = {"calibrated_probe": "linear probe", "knn5_scaled": "kNN-5, standardised"}
METADATA = ("given", "withheld")
TABLE, TEXT = "read_out.csv", "read_out.md"
BATCH = 128


def main(argv: list[str] | None = None) -> int:
    """Measure what is not measured yet, write and print; returns the exit code."""
    parser = ArgumentParser(prog="python -m studies.recipe.read_out", description="Which block to read tokens after.")
    add = parser.add_argument
    add("--out", type=user_path, required=True, metavar="DIR", help="for patches, finished scores and results")
    add("--weights", default="xxs", metavar="NAME", help="what MOEMAE.from_pretrained takes (default: %(default)s)")
    add("--patches", type=int, default=2000, metavar="N", help="to fit, and to score (default: %(default)s each)")
    add("--seed", type=int, default=778, help="of the simulated patches (default: %(default)s, where choices are made)")
    arguments = parser.parse_args(argv)
    if arguments.patches < 2:
        raise ConfigError(f"--patches {arguments.patches}: give at least 2, for a probe is fitted on them")
    from models.pretrained import weights_path
    from studies.engine.stages import StageCache
    from utils.files import check_writable, write_text
    from utils.locks import held_alone

    weights = weights_path(arguments.weights)
    folder = check_writable(arguments.out)
    with held_alone(folder, "at work in it; wait for it, or choose --out"):
        found = scores_by_block(StageCache(folder), weights, arguments.patches, arguments.seed)
        write_text(folder / TABLE, rows_as_csv(found))
        write_text(folder / TEXT, text := tables(found))
    reporter.info(text)
    return 0


def scores_by_block(cache: Any, weights: Path, patches: int, seed: int) -> dict[str, dict[int, dict[str, Any]]]:
    """Micro mAP, and its difference to the last block's, by metadata, block (from 1) and protocol."""
    from eval.statistics.bootstrap import SHARE, resample
    from eval.statistics.spatial_blocks import neighbour_blocks
    from eval.statistics.weighted_metrics import micro_map
    from models.pretrained import read_weights
    from studies.recipe.band_scores import patches_for, simulated_patches
    from utils.files import sha256

    checkpoint = read_weights(weights)
    folder, digest = simulated_patches(cache, patches, seed)
    train, test = (patches_for(checkpoint.config, folder, split) for split in ("train", "test"))
    assert test.labels is not None
    labels, blocks = test.labels.numpy(), neighbour_blocks(test.ids, test.places())
    inputs = {"weights": sha256(weights), "patches": digest, "protocols": list(PROTOCOLS)}
    found: dict[str, dict[int, dict[str, Any]]] = {metadata: {} for metadata in METADATA}
    for metadata in METADATA:
        resampled = {}
        for block in range(1, checkpoint.config.depth + 1):
            model = checkpoint._replace(config=checkpoint.config.replace(read_depth=block))
            stage = cache.stage(
                f"scores/{metadata}/block_{block}", inputs, partial(_write_scores, model, metadata, train, test)
            )
            with np.load(stage.folder / "scores.npz") as arrays:
                resampled[block] = {
                    key: resample(micro_map(labels, arrays[key]), blocks, seed, limits=SHARE) for key in PROTOCOLS
                }
        last = resampled[checkpoint.config.depth]
        for block, several in resampled.items():
            found[metadata][block] = {
                key: {"score": plain(one.interval()), "minus_last": plain(one.minus(last[key]).interval())}
                for key, one in several.items()
            }
    return found


def _write_scores(checkpoint: Any, metadata: str, train: Any, test: Any, folder: Path) -> None:
    """Scores (N, L) on the test patches, by protocol."""
    from eval.probing.protocols import run_protocol
    from utils.files import write_npz

    model = checkpoint.build()
    fitted_on, judged = (vectors_of(model, dataset, metadata) for dataset in (train, test))
    scores = {key: run_protocol(key, fitted_on, None, judged, test.classes).scores for key in PROTOCOLS}
    write_npz(folder / "scores.npz", scores)


def vectors_of(model: Any, dataset: Any, metadata: str) -> Any:
    """Embeddings of all patches as the weights pool them; `metadata` "withheld": without time and place."""
    import torch

    from eval.probing.representation import Vectors
    from models.inference.embedder import Embedder

    embedder, parts = Embedder(model, model.config.pool), []
    for start in range(0, len(dataset), BATCH):
        batch = dataset.batch(range(start, min(start + BATCH, len(dataset))))
        parts.append(embedder(batch.images, batch.meta if metadata == "given" else None, batch.valid))
    return Vectors(torch.cat(parts).numpy(), dataset.labels.numpy(), dataset.ids)


def tables(found: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    """The results in Markdown."""
    lines = []
    for metadata, by_block in found.items():
        header = ["after block", *(f"{title}{end}" for title in PROTOCOLS.values() for end in ("", ", to the last"))]
        rows = [
            [str(block), *(shown(scores[key][part]) for key in PROTOCOLS for part in ("score", "minus_last"))]
            for block, scores in by_block.items()
        ]
        lines += [f"Micro mAP, %, metadata {metadata}:", "", markdown_table(header, rows), ""]
    return "\n".join(lines)


def rows_as_csv(found: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    """One figure a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["metadata", "block", "protocol", "what", "value", "low", "high"])
    for metadata, by_block in found.items():
        for block, scores in by_block.items():
            for key, parts in scores.items():
                for what, value in parts.items():
                    writer.writerow([metadata, block, key, what, *value])
    return text.getvalue()


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
