"""Check of the reference within a run: its cost relative to matrix products timed alternately with it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from benchmarks.machine import measure_limits
from benchmarks.published import NOTE, STAND_IN
from benchmarks.reference_cost import Verdict, judge
from benchmarks.report import Row
from benchmarks.setting import Setting
from benchmarks.timing import Timing, Work, alternate
from utils.threads import torch_threads

PRODUCT = "matrix product"
"""Name of the product among what is timed."""

PUBLISHED_CORES = 2
"""The published code's cost was measured on so many."""

HOST_ROUNDS = 3

Make = Callable[[Setting, Sequence[str]], dict[str, Work]]


def product_work(setting: Setting) -> Work:
    """The float32 matrix product at which the machine was fastest."""
    return setting.limits.float32_by.work(setting.device)


def reference_verdict(work: str, setting: Setting, timings: dict[str, Timing], make: Make) -> Verdict | None:
    """Whether the reference costs what the published code costs; None in a quick run.

    Nobody has measured the published code on a GPU of known speed: a run on one checks the reference, which is the same
    code there, on two cores of the host.

    Args:
        work: "train" or "embed".
        setting: of the run.
        timings: with "reference" and `PRODUCT`, taken in turns.
        make: makes the work by name, for a check on the host.
    """
    if setting.quick or setting.published is not None:  # the published code needs no proof of its cost
        return None
    if setting.kind == "cpu":
        return _verdict(work, setting, timings)
    with torch_threads(PUBLISHED_CORES):  # as many as the published cost was measured on
        host = torch.device("cpu")
        setting = setting._replace(device=host, limits=measure_limits(host, quick=True))
        works = {**make(setting, ["reference"]), PRODUCT: product_work(setting)}
        return _verdict(work, setting, alternate(works, HOST_ROUNDS, host))


def _verdict(work: str, setting: Setting, timings: dict[str, Timing]) -> Verdict:
    limits = setting.limits
    # The product was timed in turns with the reference; limits measured at another moment could differ by the load.
    fastest = limits.float32_by.shape.operations / timings[PRODUCT].median
    return judge(work, timings["reference"].median, fastest, fastest * limits.linear / limits.float32)


def with_reference(rows: list[Row], setting: Setting) -> list[Row]:
    """The rows with a note that says what the reference is."""
    note = STAND_IN if setting.published is None else NOTE
    return [
        replace(row, note="; ".join(filter(None, [row.note, note]))) if row.ratio is not None else row for row in rows
    ]


def judged(rows: list[Row], verdict: Verdict | None) -> list[Row]:
    """The rows with their ratios void where the reference is no fair baseline, and its cost in the first."""
    if verdict is None:
        return rows
    first, *others = (row.judged(verdict) for row in rows)
    note = "; ".join(filter(None, [first.note, verdict.sentence if verdict.valid else ""]))
    return [replace(first, note=note, details={**first.details, "cost_of_the_reference": verdict.as_dict()}), *others]
