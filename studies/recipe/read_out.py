"""How good embeddings are that are read after each block: `python -m studies.recipe.read_out --out DIR`.

The same simulated patches are embedded after every encoder block in turn (`ModelConfig.read_depth`), with and without
metadata, and scored by a linear probe and by kNN-5 of standardised numbers; with `--real`, real ones as well, each
tested once in a cross-validation by area. Differences are to the last block.
"""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from studies.recipe.sensors import plain, shown
from utils.arguments import ArgumentParser, user_path
from utils.errors import ConfigError, run_script
from utils.markdown import markdown_table
from utils.reporting import reporter

PROTOCOLS = {"calibrated_probe": "linear probe", "knn5_scaled": "kNN-5, standardised"}
METADATA = ("given", "withheld")
TABLE, TEXT = "read_out.csv", "read_out.md"
FOLDS = 5

Found = dict[str, dict[int, dict[str, Any]]]
"""Metadata to block to protocol to figures."""


def main(argv: list[str] | None = None) -> int:
    """Measure what is not measured yet, write and print; returns the exit code."""
    parser = ArgumentParser(prog="python -m studies.recipe.read_out", description="Which block to read tokens after.")
    add = parser.add_argument
    add("--out", type=user_path, required=True, metavar="DIR", help="for patches, finished scores and results")
    add("--weights", default="xxs", metavar="NAME", help="what MOEMAE.from_pretrained takes (default: %(default)s)")
    add("--patches", type=int, default=2000, metavar="N", help="to fit, and to score (default: %(default)s each)")
    add("--real", type=user_path, metavar="DIR", help="BigEarthNet-Landsat patches with labels, to be scored as well")
    add("--split", default="samples.csv", metavar="FILE", help="which of them (default: %(default)s)")
    add("--seed", type=int, default=778, help="of the simulated patches (default: %(default)s, where choices are made)")
    arguments = parser.parse_args(argv)
    if arguments.patches < 2:
        raise ConfigError(f"--patches {arguments.patches}: give at least 2, for a probe is fitted on them")
    from models.pretrained import read_weights, weights_path
    from studies.engine.stages import StageCache
    from utils.files import check_writable, sha256, write_text
    from utils.locks import held_alone

    weights = weights_path(arguments.weights)
    checkpoint, digest = read_weights(weights), sha256(weights)
    real = None if arguments.real is None else real_bench(checkpoint.config, arguments.real, arguments.split)
    folder = check_writable(arguments.out)
    with held_alone(folder, "at work in it; wait for it, or choose --out"):
        cache = StageCache(folder)
        benches = [simulated_bench(cache, checkpoint.config, arguments.patches, arguments.seed)]
        benches += [] if real is None else [real]
        found = {bench.name: scores_by_block(cache, checkpoint, digest, bench) for bench in benches}
        write_text(folder / TABLE, rows_as_csv(found))
        write_text(folder / TEXT, text := tables(found))
    reporter.info(text)
    return 0


class JudgedPatches(NamedTuple):
    """Patches that embeddings are judged on."""

    name: str
    parts: Sequence[Any]
    """Datasets, whose patches follow one another."""
    divisions: Sequence[Mapping[str, np.ndarray]]
    """Rows to fit on, to choose with (there may be none) and to score, by "train", "val" and "test"."""
    digest: str

    @property
    def tested(self) -> np.ndarray:
        """Rows that are scored, in the order of the scores."""
        return np.concatenate([division["test"] for division in self.divisions])

    def blocks(self) -> np.ndarray:
        """The bootstrap's, of the rows tested."""
        from eval.statistics.spatial_blocks import neighbour_blocks

        ids = [name for part in self.parts for name in part.ids]
        places = np.concatenate([part.places() for part in self.parts])
        return neighbour_blocks([ids[row] for row in self.tested], places[self.tested])


def simulated_bench(cache: Any, config: Any, patches: int, seed: int) -> JudgedPatches:
    """As many simulated patches to fit on as to score."""
    from studies.recipe.band_scores import SPLIT_FILE, patches_for, simulated_patches

    folder, digest = simulated_patches(cache, patches, seed)
    parts = [patches_for(config, folder, SPLIT_FILE.format(split)) for split in ("train", "test")]
    division = {"train": np.arange(patches), "test": np.arange(patches, 2 * patches)}
    return JudgedPatches("simulated", parts, [division], digest)


def real_bench(config: Any, folder: Path, split: str) -> JudgedPatches:
    """Real patches with labels, each tested once, `FOLDS` folds of whole areas."""
    from eval.statistics.spatial_blocks import area_folds
    from studies.engine.divisions import fold_rows
    from studies.recipe.band_scores import patches_for

    dataset = patches_for(config, folder, split, labels="skip")
    fold_of = area_folds(dataset.ids, FOLDS, 0, dataset.places())
    return JudgedPatches("real", [dataset], [fold_rows(fold_of, fold) for fold in range(FOLDS)], dataset.fingerprint())


def scores_by_block(cache: Any, checkpoint: Any, digest: str, bench: JudgedPatches) -> Found:
    """Micro mAP, and its difference to the last block's, by metadata, block (from 1) and protocol.

    Args:
        cache: of what has been computed.
        checkpoint: the weights.
        digest: of their file.
        bench: the patches.
    """
    from eval.statistics.bootstrap import SHARE, resample
    from eval.statistics.weighted_metrics import micro_map

    labels = np.concatenate([part.labels.numpy() for part in bench.parts])[bench.tested]
    blocks, inputs = bench.blocks(), {"weights": digest, "patches": bench.digest, "protocols": list(PROTOCOLS)}
    found: Found = {metadata: {} for metadata in METADATA}
    for metadata in METADATA:
        resampled = {}
        for block in range(1, checkpoint.config.depth + 1):
            model = checkpoint._replace(config=checkpoint.config.replace(read_depth=block))
            place = f"scores/{bench.name}/{metadata}/block_{block}"
            stage = cache.stage(place, inputs, partial(_write_scores, model, metadata, bench))
            with np.load(stage.folder / "scores.npz") as arrays:
                resampled[block] = {
                    key: resample(micro_map(labels, arrays[key]), blocks, 0, limits=SHARE) for key in PROTOCOLS
                }
        last = resampled[checkpoint.config.depth]
        for block, several in resampled.items():
            found[metadata][block] = {
                key: {"score": plain(one.interval()), "minus_last": plain(one.minus(last[key]).interval())}
                for key, one in several.items()
            }
    return found


def _write_scores(checkpoint: Any, metadata: str, bench: JudgedPatches, folder: Path) -> None:
    """Scores (N, L) of the rows tested, by protocol."""
    from eval.probing.protocols import run_protocol
    from utils.files import write_npz

    vectors, names = vectors_of_all(checkpoint.build(), bench.parts, metadata), bench.parts[0].classes
    scores: dict[str, list[np.ndarray]] = {key: [] for key in PROTOCOLS}
    for division in bench.divisions:
        rows = {split: vectors.rows(chosen) for split, chosen in division.items()}
        for key, several in scores.items():
            several.append(run_protocol(key, rows["train"], rows.get("val"), rows["test"], names).scores)
    write_npz(folder / "scores.npz", {key: np.concatenate(several) for key, several in scores.items()})


def vectors_of_all(model: Any, parts: Sequence[Any], metadata: str) -> Any:
    """Embeddings of all patches as the weights pool them; `metadata` "withheld": without time and place."""
    from eval.probing.representation import Vectors
    from studies.recipe.band_scores import vectors_of

    found = [vectors_of(model, dataset, metadata == "given") for dataset in parts]
    ids = [name for one in found for name in one.ids]
    return Vectors(np.concatenate([one.x for one in found]), np.concatenate([one.y for one in found]), ids)


def tables(found: Mapping[str, Found]) -> str:
    """The results in Markdown."""
    lines = []
    for bench, results in found.items():
        for metadata, by_block in results.items():
            header = [
                "after block",
                *(f"{title}{end}" for title in PROTOCOLS.values() for end in ("", ", to the last")),
            ]
            rows = [
                [str(block), *(shown(scores[key][part]) for key in PROTOCOLS for part in ("score", "minus_last"))]
                for block, scores in by_block.items()
            ]
            lines += [f"Micro mAP, %, {bench} patches, metadata {metadata}:", "", markdown_table(header, rows), ""]
    return "\n".join(lines)


def rows_as_csv(found: Mapping[str, Found]) -> str:
    """One figure a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["patches", "metadata", "block", "protocol", "what", "value", "low", "high"])
    for bench, results in found.items():
        for metadata, by_block in results.items():
            for block, scores in by_block.items():
                for key, parts in scores.items():
                    for what, value in parts.items():
                        writer.writerow([bench, metadata, block, key, what, *value])
    return text.getvalue()


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
