"""The training step: eager and compiled at the published batch, and the best throughput."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from benchmarks.check import PRODUCT, judged, product_work, reference_verdict, with_reference
from benchmarks.goals import goal
from benchmarks.operations import training_operations
from benchmarks.ours import OurTraining, forget_compiled, not_compiled
from benchmarks.profile import Part, profile_call
from benchmarks.published import PublishedWork
from benchmarks.reference_work import BATCH, ReferenceTraining, by_field
from benchmarks.report import LimitName, Row, timed_row
from benchmarks.setting import Setting, sample_batch
from benchmarks.timing import Timing, Work, alternate
from utils.devices import mixed_precision

QUICK_BATCH = 4
HALF = "compiled, bfloat16"
"""The compiled step in mixed precision, where that is not the default: on a CPU."""
OTHER_BATCHES = {"cpu": (32, 512), "cuda": (512, 1024, 2048, 4096, 8192)}
"""Tried for the best throughput, besides the published batch."""


def training_works(setting: Setting, names: Sequence[str]) -> dict[str, Work]:
    """A step on the same patches as a call, by name: "reference", or one of ours, "eager", "compiled", `HALF`."""
    forget_compiled()
    batch = sample_batch(QUICK_BATCH if setting.quick else BATCH)
    works: dict[str, Work] = {}
    for name in names:
        if name == "reference" and setting.published is not None:
            works[name] = PublishedWork("train", setting.published, batch)
        elif name == "reference":
            training = ReferenceTraining(setting.config, setting.device, setting.seed)
            fields = by_field(batch.meta)
            works[name] = lambda training=training, fields=fields: training.step(batch.images, fields)
        else:
            amp = "bf16" if name == HALF else "auto"
            ours = batch.to(setting.device).training()
            works[name] = OurTraining(setting.config, ours, name.startswith("compiled"), setting.seed, amp)
    return works


def train_rows(setting: Setting) -> list[Row]:
    """Rows of the published batch, and of the best one."""
    names = ["eager", "compiled"] + ([HALF] if setting.kind == "cpu" else [])
    works = training_works(setting, ["reference", *names])
    timings = alternate({**works, PRODUCT: product_work(setting)}, setting.rounds, setting.device)
    verdict = reference_verdict("train", setting, timings, training_works)
    size = len(works["eager"].batch.images)
    rows = [
        timed_row(
            f"training step, {name}, batch {size}",
            timings[name],
            timings["reference"],
            unit="ms",
            uses=_operations(setting, size, "bf16" if name == HALF else "auto"),
            goal=goal(f"train {name}", setting.kind, setting.quick),
        )
        for name in names
    ]
    for place, name in enumerate(names[1:], 1):
        reason = not_compiled(works[name])
        if reason:
            rows[place] = Row(rows[place].work, "ms", goal=rows[place].goal, note=reason)
        else:  # what else was said: that it could not be captured
            rows[place] = replace(rows[place], note="; ".join(works[name].said))
    compiled = not any(not_compiled(works[name]) for name in names[1:])
    rows = with_reference(rows, setting)
    return judged([*rows, _best_batch(setting, size, timings, names if compiled else names[:1])], verdict)


def _operations(setting: Setting, patches: int, amp: str = "auto") -> tuple[LimitName, float]:
    """Of the matrix products of a step."""
    in_bfloat16 = mixed_precision(setting.device, amp) is not None
    return "bfloat16" if in_bfloat16 else "float32", patches * training_operations(setting.config)


def _best_batch(setting: Setting, size: int, timings: dict[str, Timing], names: Sequence[str]) -> Row:
    """Patches/s at the batch where that is most; on a CPU other batches are timed eager, since compiling takes long."""
    name = min(names, key=lambda name: timings[name].median)
    tried = {f"{size}, {name}": (size, timings[name])}
    compiled = setting.kind == "cuda" and len(names) > 1
    for other in () if setting.quick else OTHER_BATCHES[setting.kind]:
        forget_compiled()
        with suppress(torch.OutOfMemoryError):  # the largest batches need not fit every GPU
            patches = sample_batch(other).to(setting.device).training()
            work = OurTraining(setting.config, patches, compiled, setting.seed)
            timing = alternate({"step": work}, max(1, setting.rounds // 2), setting.device)["step"]
            tried[f"{other}, {'compiled' if compiled else 'eager'}"] = other, timing
    best = max(tried, key=lambda key: tried[key][0] / tried[key][1].median)
    count, timing = tried[best]
    row = timed_row(
        f"training throughput, best batch ({best})",
        timing,
        None,
        unit="patches/s",
        items=count,
        uses=_operations(setting, count, "bf16" if HALF in best else "auto"),
        goal=goal("train throughput", setting.kind, setting.quick),
    )
    rates = {key: count / timing.median for key, (count, timing) in tried.items()}
    return replace(row, reference=size / timings["reference"].median, details={**row.details, "patches/s": rates})


def profile_steps(setting: Setting) -> dict[str, list[Part]]:
    """A profile of one step of each."""
    works = training_works(setting._replace(published=None), ["eager", "compiled", "reference"])
    titles = {"eager": "this project, eager", "compiled": "this project, compiled", "reference": "reference"}
    return {titles[name]: profile_call(work, setting.device) for name, work in works.items() if not not_compiled(work)}
