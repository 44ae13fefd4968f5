"""Probes of simulated patches on real ones: `python -m studies.recipe.simulated_probes --real DIR --out DIR`.

The nearer pixels and labels of a variant of the simulator are to real ones, the better a probe that has seen nothing
else does on real patches. Logistic regressions (C = 1, standardised by the simulated patches, one-vs-rest) see the 28
statistics of an image, the 8 numbers of its metadata, or both. Metadata, land and labels are the same in all variants.

The class spectra of all variants were calibrated on 120 real patches: on those, only the difference between variants
tells something. 95 % intervals over blocks of neighbouring real patches, and
over seeds of the simulator.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.arguments import ArgumentParser, user_path
from utils.errors import run_script
from utils.reporting import reporter

INPUTS = {
    "image statistics": ("statistics",), "metadata": ("metadata",), "both": ("statistics", "metadata"),
}  # fmt: skip
TEXT = "simulated_probes.md"
LEAST_PATCHES = 100


def main(argv: list[str] | None = None) -> int:
    """Simulate, fit, score, write and print; returns the exit code."""
    parser = ArgumentParser(prog="python -m studies.recipe.simulated_probes", description="Simulated to real.")
    add = parser.add_argument
    add("--real", type=user_path, required=True, metavar="DIR", help="BigEarthNet-Landsat patches with labels")
    add("--split", default="samples.csv", metavar="FILE", help="which of them (default: %(default)s)")
    add("--out", type=user_path, required=True, metavar="DIR", help="for the result")
    add("--patches", type=int, default=2000, metavar="N", help="to fit on, of each variant (default: %(default)s)")
    add("--seeds", type=int, nargs="+", default=[100, 101, 102, 103, 104], metavar="S", help="of the simulator")
    arguments = parser.parse_args(argv)
    if arguments.patches < LEAST_PATCHES:
        parser.error(f"argument --patches: expected {LEAST_PATCHES} or more, got {arguments.patches}")
    from utils.files import check_writable, write_text

    folder = check_writable(arguments.out)
    text = table(arguments.real, arguments.split, arguments.patches, arguments.seeds)
    write_text(folder / TEXT, text)
    reporter.info(text)
    return 0


def table(root: Path, split: str, patches: int, seeds: Sequence[int]) -> str:
    """Micro mAP on the real patches by what probes see and what they were fitted on, in Markdown.

    Args:
        root: of the real patches.
        split: their split file; those without labels are left out.
        patches: simulated ones of each variant.
        seeds: of these; a probe for each, whose figures are averaged.
    """
    from datasets.bigearthnet import BigEarthNetDatasetLS
    from datasets.simulator.baselines import baseline_inputs, probabilities
    from datasets.simulator.constants import STANDARD, VARIANTS
    from datasets.simulator.patches import simulate_chunks
    from eval.statistics.bootstrap import SHARE, Resampled, of_runs, resample
    from eval.statistics.spatial_blocks import neighbour_blocks
    from eval.statistics.weighted_metrics import micro_map
    from studies.recipe.sensors import shown
    from utils.markdown import markdown_table

    dataset = BigEarthNetDatasetLS(root, split, labels="skip")
    truth, real = real_inputs(dataset)
    blocks = neighbour_blocks(dataset.ids, np.array(dataset.places()))
    scored: dict[tuple[str, str], list[Resampled]] = {}
    for seed in seeds:
        for variant in VARIANTS:
            inputs = baseline_inputs(simulate_chunks(patches, seed, variant=variant))
            for title, names in INPUTS.items():
                features = np.hstack([getattr(inputs, name) for name in names])
                scores = probabilities(features, inputs.labels, np.hstack([real[name] for name in names]))
                found = resample(micro_map(truth, scores), blocks, 0, limits=SHARE)
                scored.setdefault((title, variant), []).append(found)
    rows = []
    for title in INPUTS:
        first = scored[title, STANDARD]
        cells = [shown(of_runs(scored[title, variant]), scale=100.0) for variant in VARIANTS]
        for variant in VARIANTS[1:]:
            pairs = zip(scored[title, variant], first, strict=True)
            cells.append(shown(of_runs([one.minus(other) for one, other in pairs]), scale=100.0))
        rows.append([title, *cells])
    others = [f"{name} minus {STANDARD}" for name in VARIANTS[1:]]
    return markdown_table(["probe on", *VARIANTS, *others], rows) + "\n"


def real_inputs(dataset: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels (n, 19) and what probes see of real patches."""
    import torch

    from transformation.image_statistics import image_statistics
    from utils.metadata import encode_metadata

    batch = dataset.read(range(len(dataset.ids)))
    pixels = torch.from_numpy(batch.pixels.astype(np.int32))
    statistics = image_statistics(pixels, (pixels > 0).any(1)).double().numpy()
    metadata = encode_metadata(batch.columns).reshape(len(pixels), -1).astype(np.float64)
    return dataset.labels.numpy().astype(bool), {"statistics": statistics, "metadata": metadata}


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
