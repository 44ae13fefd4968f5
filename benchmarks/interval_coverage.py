"""Coverage of the 95 % intervals, on simulated test sets whose true values are known.

    python -m benchmarks.interval_coverage [--samples 200] [--draws 300] [--out benchmarks/results/interval_coverage.md]

A test set has blocks of 6 patches with 19 labels, the rarest on 1 patch in 100; labels and scores of a block have
something in common. The truth is the figure of 240,000 patches. Every interval is made of the same draws.

Differences are those of two models on the same patches, and of two ways to train, each with 5 seeds, of which some are
luckier than others. All models share what is hard about a patch; each errs on its own as well, in part by block.
"""

import argparse
from itertools import chain
from pathlib import Path

from utils.errors import run_script
from utils.reporting import reporter


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table and, with --out, keep it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200, help="test sets of each size (default: %(default)s)")
    parser.add_argument("--draws", type=int, help="of each test set's bootstrap (default: as many as reports draw)")
    parser.add_argument("--out", type=Path, help="a file to keep the table in")
    given = parser.parse_args(arguments)
    from benchmarks.coverage_simulation import (
        COMPARED_SIZES,
        SIZES,
        Simulation,
        comparison_table,
        comparisons,
        coverage,
        table,
    )
    from eval.statistics.bootstrap import DRAWS
    from utils.files import write_text

    draws = DRAWS if given.draws is None else given.draws
    simulation = Simulation()
    truth = simulation.truth()
    rows = ((blocks, coverage(simulation, truth, blocks, given.samples, draws)) for blocks in SIZES)
    fewer = max(draws // 2, 2)  # percentiles of 250 draws are good enough to count intervals
    compared = Simulation(1)
    lead = compared.lead()
    differences = ((blocks, comparisons(compared, lead, blocks, given.samples, fewer)) for blocks in COMPARED_SIZES)
    lines = []
    for line in chain(table(rows, given.samples, draws), comparison_table(differences, fewer)):
        reporter.info(line)
        lines.append(line)
    if given.out:
        write_text(given.out, "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    run_script(main)
