"""Label efficiency: probes fitted on shares of the labelled patches, on an encoder and on baselines without one."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from eval.probing.representation import Vectors
from studies.ablations.figures import plot_curves
from studies.ablations.study import Study
from studies.ablations.variants import (
    PROTOCOL,
    EmbeddingSpec,
    recipe_variant,
    representation,
    run_of,
    untrained_variant,
)
from studies.ablations.wording import PairedDifference
from studies.comparison.baselines import baseline, baseline_names
from studies.comparison.main_table import BOTH, STATISTICS
from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.runs import SplitRepresentation
from studies.engine.scoring import METRIC_TITLES, Representation, Scored, difference, headline, interval, score
from studies.report_parts.sections import Cell, Section, Table, Value
from utils.randomness import derive_seed

FEWEST = 2
"""Patches that a probe is fitted on at least."""

FEW = (0.05, 0.1)
"""Shares at which claims are tested, besides the smallest one that a probe can be fitted on."""


def labels_section(context: StudyContext) -> Section:
    """A pretrained encoder, an untrained one and image statistics (with metadata) by share of the labels."""
    study = Study(context, "labels", "Study: label efficiency", context.data.study)
    source, shares, seeds = study.source, sorted(context.config.study.label_shares), context.config.study.seeds
    results = {
        title: [_scores(context, source, name, of_seed, share) for share in shares]
        for title, (name, of_seed) in _representations(context, source).items()
    }
    ours, *others = results
    metric = headline(source)
    title = METRIC_TITLES[metric]
    rows: list[list[Cell]] = []
    differences: list[PairedDifference] = []
    claims: dict[str, PairedDifference] = {}
    in_folds = f", in {len(source.folds)} folds together" if len(source.folds) > 1 else ""
    for place, share in enumerate(shares):
        percent = f"{100 * share:g} %"
        train, val = (_labelled(source, split, share) for split in ("train", "val"))
        cells = [_cell(context, results[name][place], metric) for name in results]
        gaps = {name: _gap(context, results[ours][place], results[name][place], metric) for name in others}
        rows.append([percent, train, val, *cells, *gaps.values()])
        found = [
            PairedDifference(f"with {percent} of the labels {ours}", name, gap, title, runs=len(seeds))
            for name, gap in gaps.items()
            if gap is not None
        ]
        differences += found
        if share in FEW or not claims:
            of = f"{percent} of them ({train} patches{in_folds})"
            claims |= {f"labels are used efficiently: {of}, compared with {one.second}": one for one in found}
    columns = ["labels", "training patches", "validation patches", *results, *(f"{ours} minus {one}" for one in others)]
    note = (
        f"{title} in per cent, differences in percentage points, 95 % intervals. Patches are drawn anew for every "
        "pretraining seed, smaller samples from within larger ones; validation patches, on which C is chosen, are "
        f"reduced by the same share, but to {FEWEST} at least: the columns count them{in_folds}. Empty: too few "
        "patches to fit a probe."
    )
    table = Table("study_labels", "Label efficiency", columns, rows, source.measured_on(), note)
    shown = {name: [_cell(context, one, metric) for one in several] for name, several in results.items()}
    percents = [100 * share for share in shares]
    picture = study.figure(
        [shown, shares],
        lambda: plot_curves(shown, percents, "labels, % of the training split", study.axis, log=True),
        "Probe score by share of the labels",
    )
    return study.section(differences, [*study.claims(claims), table], [picture])


def _representations(context: StudyContext, source: Source) -> dict[str, tuple[str, Callable[[int], Representation]]]:
    """Title to name for folders and, by seed, representation; the encoder under test first."""
    spec, untrained = EmbeddingSpec(context.config.study.pool), untrained_variant()
    trained = recipe_variant("pretrained")
    width = run_of(context, trained, context.config.study.seeds[0]).config.embed_dim
    names = baseline_names(context, source, width)
    simple = BOTH if BOTH in names else STATISTICS
    return {
        "pretrained": (f"{trained.name}/{spec.name}", lambda seed: representation(context, trained, seed, spec)),
        "untrained": (f"{untrained.name}/{spec.name}", lambda seed: representation(context, untrained, seed, spec)),
        simple: (names[simple], lambda seed: baseline(context, source, simple, width)),
    }


class TooFewLabelsError(Exception):
    """A sample of the labels that no probe can be fitted on."""


def _scores(
    context: StudyContext, source: Source, name: str, of_seed: Callable[[int], Representation], share: float
) -> list[Scored] | None:
    """One result per pretraining seed; None where a sample has too few labels to fit on."""
    found = []
    for seed in context.config.study.seeds:
        place = f"study/labels/{name}/seed{seed}/share{share:g}"
        try:
            found.append(score(context, place, PROTOCOL, fewer(context, of_seed(seed), share, seed), source=source))
        except TooFewLabelsError:
            return None
    return found


def fewer(context: StudyContext, every_label: Representation, share: float, seed: int) -> Representation:
    """A representation with a share of its labelled patches: of the training and of the validation split.

    Its vectors raise `TooFewLabelsError` where the training patches drawn are of one class, or have no label at all.
    """

    def some(split: str, fold: int) -> SplitRepresentation:
        whole = every_label(split, fold)
        if split == "test":
            return whole

        def read() -> Vectors:
            random = derive_seed(context.config.seed, "labels", split, fold, seed)
            drawn = whole.vectors if share == 1.0 else whole.vectors.rows(chosen_rows(whole.vectors, share, random))
            if split == "train" and not can_be_fitted(drawn.y):
                raise TooFewLabelsError
            return drawn

        return SplitRepresentation(read, whole.digest if share == 1.0 else f"{whole.digest}/share{share:g}/draw{seed}")

    return some


def can_be_fitted(y: np.ndarray) -> bool:
    """Whether labels, (N,) class indices or (N, L) multi-hot, are of two classes, or have a positive."""
    return bool((y > 0).any()) if y.ndim == 2 else len(np.unique(y)) > 1


def chosen_rows(vectors: Vectors, share: float, seed: int) -> np.ndarray:
    """Rows of a share of the patches, sorted; a smaller share's are among a larger one's. Of classes, a share of each.

    Args:
        vectors: all of them.
        share: between 0 and 1.
        seed: of the draw; patches are put in order of their ids first.
    """
    ids = np.asarray(vectors.ids)
    order = np.argsort(ids, kind="stable")[np.random.default_rng(seed).permutation(len(ids))]
    if vectors.y.ndim == 2:
        return np.sort(order[: count_of(len(ids), share)])
    classes = vectors.y[order]
    parts = [order[classes == one] for one in np.unique(classes)]
    return np.sort(np.concatenate([part[: math.ceil(share * len(part))] for part in parts]))


def count_of(patches: int, share: float) -> int:
    """How many labelled patches a share is."""
    return min(patches, max(FEWEST, round(share * patches)))


def _labelled(source: Source, split: str, share: float) -> int | None:
    """Patches of a split that a share is, all folds together."""
    if source.split_file(split) is None:
        return None
    folds = [source.dataset(split, fold=fold) for fold in range(len(source.folds))]
    if source.multilabel or share == 1.0:
        return sum(count_of(len(one), share) for one in folds)
    counts = [np.unique(source.labels(split, fold), return_counts=True)[1] for fold in range(len(folds))]
    return sum(math.ceil(share * count) for one in counts for count in one)


def _cell(context: StudyContext, scored: Sequence[Scored] | None, metric: str) -> Value | None:
    return interval(context, scored, metric) if scored else None


def _gap(
    context: StudyContext, first: Sequence[Scored] | None, second: Sequence[Scored] | None, metric: str
) -> Value | None:
    return difference(context, first, second, metric) if first and second else None
