"""How few labels are enough: shares of the labelled patches, for the encoder and for what needs none."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from eval.probing.protocols import Vectors
from studies.ablations.figures import plot_curves
from studies.ablations.variants import PROTOCOL, RECIPE, Arm, How, describe, run_of, untrained_arm
from studies.ablations.wording import Compared, claims_of, figure, headline_title, recipe_words, summary
from studies.comparison.baselines import baseline, baseline_names
from studies.comparison.main_table import BOTH, STATISTICS
from studies.engine.context import Bench
from studies.engine.data import Source
from studies.engine.runs import Described
from studies.engine.scoring import METRIC_TITLES, Describe, Scored, difference, headline, interval, score
from studies.report_parts.sections import Section, Table, Value
from utils.randomness import derive_seed

FEWEST = 2
"""Patches that a probe is fitted on at least."""

FEW = (0.05, 0.1)
"""Shares that claims are judged at, beside the smallest one that anything can be fitted on."""


def labels_section(bench: Bench) -> Section:
    """A pretrained encoder, an untrained one and image statistics (with metadata) by share of the labels."""
    source, shares = bench.data.study, sorted(bench.config.study.label_shares)
    descriptions = _descriptions(bench, source)
    results = {
        title: [_scores(bench, source, name, of_seed, share) for share in shares]
        for title, (name, of_seed) in descriptions.items()
    }
    ours, *others = results
    metric = headline(source)
    title = METRIC_TITLES[metric]
    rows, said, claims = [], [], {}
    in_folds = f", in {len(source.folds)} folds together" if len(source.folds) > 1 else ""
    for place, share in enumerate(shares):
        train, val = (_labelled(source, split, share) for split in ("train", "val"))
        cells = [_cell(bench, results[name][place], metric) for name in results]
        gaps = [_gap(bench, results[ours][place], results[name][place], metric) for name in others]
        rows.append([f"{100 * share:g} %", train, val, *cells, *gaps])
        found = [
            Compared(
                f"with {100 * share:g} % of the labels {ours}", name, gap, title, runs=len(bench.config.study.seeds)
            )
            for name, gap in zip(others, gaps, strict=True)
            if gap is not None
        ]
        said += found
        if share in FEW or not claims:
            of = f"{100 * share:g} % of them ({train} patches{in_folds})"
            claims |= {f"labels are used efficiently: {of}, beside {one.second}": one for one in found}
    columns = ["labels", "to fit on", "to choose C on", *results, *(f"{ours} minus {name}" for name in others)]
    note = (
        f"{title} in per cent, differences in percentage points, 95 % intervals. Patches are drawn anew for every "
        "pretraining seed, fewer from among more; those to choose C on are cut by the same share, "
        f"but {FEWEST} at least: the columns say how many there are{in_folds}. Empty: too few patches to fit on."
    )
    table = Table("study_labels", "Label efficiency", columns, rows, source.measured_on(), note)
    judged = [claims_of(bench, "labels", claims)] if claims else []
    shown = {name: [_cell(bench, one, metric) for one in several] for name, several in results.items()}
    picture = figure(
        bench, "labels", [shown, shares],
        lambda: plot_curves(shown, [100 * share for share in shares], "labels, % of the training split",
                            headline_title(source), log=True),
        f"What a probe scores by share of the labels: {source.measured_on()}.",
    )  # fmt: skip
    return Section("Study: label efficiency", [*summary(said), *recipe_words(bench)], [*judged, table], [picture])


def _descriptions(bench: Bench, source: Source) -> dict[str, tuple[str, Callable[[int], Describe]]]:
    """Title to name for folders and, by seed, description; the encoder that is judged first."""
    arm, how = Arm(RECIPE, "pretrained", {}), How(bench.config.study.pool)
    width = run_of(bench, arm, bench.config.study.seeds[0]).config.embed_dim
    names = baseline_names(bench, source, width)
    simple = BOTH if BOTH in names else STATISTICS
    return {
        "pretrained": (f"{arm.name}/{how.name}", lambda seed: describe(bench, arm, seed, how)),
        "untrained": (f"{untrained_arm().name}/{how.name}", lambda seed: describe(bench, untrained_arm(), seed, how)),
        simple: (names[simple], lambda seed: baseline(bench, source, simple, width)),
    }


class TooFewLabelsError(Exception):
    """A draw that nothing can be fitted on."""


def _scores(
    bench: Bench, source: Source, name: str, of_seed: Callable[[int], Describe], share: float
) -> list[Scored] | None:
    """One result a seed; None where a draw has too few patches to fit on."""
    found = []
    for seed in bench.config.study.seeds:
        place = f"study/labels/{name}/seed{seed}/share{share:g}"
        try:
            found.append(score(bench, place, PROTOCOL, fewer(bench, of_seed(seed), share, seed), source=source))
        except TooFewLabelsError:
            return None
    return found


def fewer(bench: Bench, describe_all: Describe, share: float, seed: int) -> Describe:
    """A description with a share of its labelled patches: of the training split, and of that to choose C on.

    Its vectors raise `TooFewLabelsError` where the training patches drawn are of one class, or have no label at all.
    """

    def some(split: str, fold: int) -> Described:
        whole = describe_all(split, fold)
        if split == "test":
            return whole

        def read() -> Vectors:
            random = derive_seed(bench.config.seed, "labels", split, fold, seed)
            drawn = whole.vectors if share == 1.0 else whole.vectors.rows(chosen_rows(whole.vectors, share, random))
            if split == "train" and not can_be_fitted(drawn.y):
                raise TooFewLabelsError
            return drawn

        return Described(read, whole.digest if share == 1.0 else f"{whole.digest}/share{share:g}/draw{seed}")

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
    counts = [np.unique(one.labels.numpy(), return_counts=True)[1] for one in folds]
    return sum(math.ceil(share * count) for one in counts for count in one)


def _cell(bench: Bench, scored: Sequence[Scored] | None, metric: str) -> Value | None:
    return interval(bench, scored, metric) if scored else None


def _gap(bench: Bench, first: Sequence[Scored] | None, second: Sequence[Scored] | None, metric: str) -> Value | None:
    return difference(bench, first, second, metric) if first and second else None
