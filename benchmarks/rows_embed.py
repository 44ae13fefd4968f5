"""Embedding: 64 patches with all 105 tokens, from tensors on the CPU to an array."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from benchmarks.check import PRODUCT, judged, product_work, reference_verdict, with_reference
from benchmarks.goals import goal
from benchmarks.operations import embedding_operations
from benchmarks.ours import OurEmbedding, forget_compiled, not_compiled
from benchmarks.published import PublishedWork
from benchmarks.reference import ReferenceMAE
from benchmarks.reference_work import EMBED_BATCH, reference_embed
from benchmarks.report import Row, timed_row
from benchmarks.setting import Setting, sample_batch
from benchmarks.timing import Timing, Work, alternate
from models.inference.runtimes import RUNTIMES, missing_packages
from models.moe_mae import build_model
from models.published_layout import to_published

QUICK_BATCH = 4
LARGE_BATCH = {"cpu": 256, "cuda": 4096}
"""For throughput, where the batch is ours to choose."""


class Variant(NamedTuple):
    """One of this project's ways to an embedding."""

    compiled: bool
    autocast: torch.dtype | None
    """The type of mixed precision."""
    backend: str = "torch"


VARIANTS = {
    "eager": Variant(False, None),
    "compiled": Variant(True, None),
    "eager, bfloat16": Variant(False, torch.bfloat16),
    "compiled, bfloat16": Variant(True, torch.bfloat16),
    **{name: Variant(False, None, name) for name in RUNTIMES if name != "torch"},
}


def variants_here(setting: Setting) -> list[str]:
    """Those that this machine can run: other runtimes on a CPU where they are installed, in a quick run none."""
    return [
        name
        for name, variant in VARIANTS.items()
        if variant.backend == "torch"
        or (setting.kind == "cpu" and not setting.quick and not missing_packages(variant.backend))
    ]


def embedding_works(setting: Setting, names: Sequence[str]) -> dict[str, Work]:
    """Embedding the same patches with the same weights as a call, by name: "reference" or one of `VARIANTS`."""
    forget_compiled()
    model = build_model(setting.config, seed=setting.seed).eval()
    batch = sample_batch(QUICK_BATCH if setting.quick else EMBED_BATCH)
    works: dict[str, Work] = {}
    for name in names:
        if name == "reference" and setting.published is not None:
            works[name] = PublishedWork("embed", setting.published, batch)
        elif name == "reference":
            reference = ReferenceMAE(setting.config)
            reference.load_state_dict(to_published(model.state_dict(), model.config))
            reference.to(setting.device)
            works[name] = lambda reference=reference: reference_embed(
                reference, batch.images, batch.meta, setting.device
            )
        else:
            options = VARIANTS[name]._asdict()
            works[name] = OurEmbedding(model.to(setting.device), batch.images, batch.meta, **options)
    return works


def embed_rows(setting: Setting) -> list[Row]:
    """One row a variant; the fastest one carries the goal."""
    variants = variants_here(setting)
    works = embedding_works(setting, ["reference", *variants])
    timings = alternate({**works, PRODUCT: product_work(setting)}, setting.rounds, setting.device)
    size = len(works["eager"].images)
    ran = [name for name in variants if not not_compiled(works[name])]
    fastest = min(ran, key=lambda name: timings[name].median)
    verdict = reference_verdict("embed", setting, timings, embedding_works)
    rows = [
        _row(
            setting,
            name,
            f"embedding {size}, {name}",
            size,
            timings[name],
            timings["reference"],
            has_goal=name == fastest and setting.kind == "cpu",
        )
        if name in ran
        else Row(f"embedding {size}, {name}", "patches/s", note=not_compiled(works[name]))
        for name in variants
    ]
    rows = judged(with_reference(rows, setting), verdict)
    return rows if setting.quick else [*rows, *_large(setting, fastest)]


def _row(
    setting: Setting, name: str, work: str, size: int, ours: Timing, reference: Timing | None, has_goal: bool
) -> Row:
    return timed_row(
        work,
        ours,
        reference,
        unit="patches/s",
        items=size,
        uses=(
            "float32" if VARIANTS[name].autocast is None else "bfloat16",
            size * embedding_operations(setting.config),
        ),
        goal=goal("embed", setting.kind, setting.quick) if has_goal else None,
    )


def _large(setting: Setting, name: str) -> list[Row]:
    """The fastest variant on a larger batch, alone; on a GPU also with the patches there already and CLS tokens out.

    All tokens of a patch are 60 kB: on a GPU their way to the host is slower than the encoder.
    """
    size = LARGE_BATCH[setting.kind]
    model, batch = build_model(setting.config, seed=setting.seed).to(setting.device), sample_batch(size)
    cases = {f"embedding {size}, {name}": (batch, "all")}
    if setting.kind == "cuda":
        cases[f"{next(iter(cases))}, patches on the GPU, CLS"] = batch.to(setting.device), "cls"
    rows = []
    for work, (patches, pool) in cases.items():
        forget_compiled()
        embedding = OurEmbedding(model, patches.images, patches.meta, pool=pool, **VARIANTS[name]._asdict())
        timing = alternate({"embedding": embedding}, max(1, setting.rounds // 2), setting.device)["embedding"]
        rows.append(_row(setting, name, work, size, timing, None, has_goal=pool == "cls"))
    return rows
