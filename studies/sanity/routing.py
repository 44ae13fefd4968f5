"""Sanity: do images of distinct land covers use the experts differently, more than chance would have it?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.experts.routing import RoutingRecord, best_by_image, mutual_information, record_routing
from eval.experts.specialisation import CoverSeparation, cover_separation, distinct_covers
from eval.statistics.block_permutation import permute_blocks
from eval.statistics.bootstrap import resample
from eval.statistics.weighted_metrics import Statistic
from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.encoders import MAIN, encoders, first_seed
from studies.engine.runs import Run
from studies.engine.stages import Stage
from studies.engine.subset import subset
from studies.experts.figures import plot_pairs, plot_share_matrices
from studies.experts.views import first_middle_last
from studies.report_parts.sections import Cell, Figure, Section, Table, Value
from utils.analysis_utils import save_figure
from utils.randomness import derive_seed

LEAST_IMAGES = 4
"""Images with one label only that a class must have to be compared."""

MOST_IMAGES = 40
"""Taken of a class, so that the most frequent one does not decide."""

SHUFFLES = 199
"""Permutations: the smallest p-value is 1 / 200."""

PAIR_P = 0.05
"""Significance level of a pair of covers."""

CONTROL_DRAWS = 20
"""Permutations whose mean is subtracted, within the bootstrap."""

PASS_P = 0.01
"""The criterion: significance level of the spatial-block permutation test."""

TITLE = "Sanity: routing on distinct covers"


def routing_section(context: StudyContext) -> Section:
    """Images with a single label, of all splits: pretraining uses no labels, so none has leaked into the routing."""
    source = context.data.main
    distinct = _distinct(context, source)
    if distinct is None:
        return Section(TITLE, [f"Not run: fewer than two classes have {LEAST_IMAGES} patches with one label only."])
    found = {}
    for encoder in encoders(context):
        if encoder.seeds:
            run = encoder.run(encoder.seeds[0], 0)
            if any(count > 1 for count in run.config.experts):
                found[encoder.name] = (encoder.title, _compared(context, distinct, run))
    if MAIN not in found:
        return Section(TITLE, ["Not run: the model has one expert in every block."])
    results = {name: stage.result for name, (_, stage) in found.items()}
    main, where = results[MAIN], f"{len(distinct.dataset('test').ids)} {source.patches()} with one label only"
    names = [source.classes[index] for index in main["classes"]]
    passed = main["p"] <= PASS_P if main["smallest_p"] <= PASS_P else None
    rows = [_row(title, stage) for title, stage in found.values()]
    columns = ["encoder", "NMI with cover", "above permuted covers", "p", "significant pairs"]
    note = (
        "NMI: normalised mutual information of a patch token's best expert with the cover of its image, mean over the "
        f"blocks. p: spatial-block permutation test with {SHUFFLES} permutations of whole areas. Significant pairs "
        f"of covers: their expert usage differs, p below {PAIR_P}, uncorrected. Brackets: 95 % interval."
    )
    table = Table("sanity_routing", "Experts and distinct covers", columns, rows, where, note)
    text = [
        f"{where}: {', '.join(f'{n} {name}' for name, n in zip(names, main['images'], strict=True))}. Criterion: "
        f"NMI of the main encoder's experts and the cover above that with permuted covers, p at most {PASS_P}.",
        f"p = {main['p']:.3f}: {_outcome(main, passed)}. {main['pairs'][0]} of {main['pairs'][1]} pairs differ "
        f"significantly, {main['most'][1]} of them with {main['most'][0]} as one of the two{_undecidable(main)}.",
        "The untrained encoder is the reference: its random gates distinguish bright covers from dark ones as well, so "
        "the criterion shows that routing depends on the cover, not that this was learned.",
        *first_seed(context),
    ]
    stage = found[MAIN][1]
    figures = [
        Figure(stage.folder / "covers.png", "Expert usage by cover, in the first, a middle and the last "
               "block."),
        Figure(stage.folder / "pairs.png", "p-value of the difference in expert usage between two covers."),
    ]  # fmt: skip
    return Section(TITLE, text, [table], figures, passed)


def _outcome(found: dict[str, Any], passed: bool | None) -> str:
    if passed is None:
        return (
            f"undetermined, {found['areas']} areas are too few to reach {PASS_P} (smallest p {found['smallest_p']:.3f})"
        )
    return "passed" if passed else "NOT passed"


def _undecidable(found: dict[str, Any]) -> str:
    few = found["undecidable"]
    return f"; {few} cannot be tested, their covers lie in too few areas" if few else ""


def _distinct(context: StudyContext, source: Source) -> Source | None:
    """The patches compared; None where there are too few."""
    ids: list[str] = []
    labels: list[np.ndarray] = []
    for split in ("train", "val", "test"):
        if source.split_file(split):
            found = source.labels(split)
            hot = found > 0 if source.multilabel else found[:, None] == np.arange(len(source.classes))
            ids += source.dataset(split).ids
            labels.append(hot)
    classes, images, _ = distinct_covers(np.concatenate(labels), LEAST_IMAGES, MOST_IMAGES, context.config.seed)
    return subset(context, source, "distinct", [ids[index] for index in images]) if len(classes) > 1 else None


def _compared(context: StudyContext, distinct: Source, run: Run) -> Stage:
    seed, draws = context.config.seed, context.config.bootstrap.draws
    loader = distinct.loader("test", context.runs.device, run.config)

    def work(folder: Path) -> dict[str, Any]:
        record = record_routing(context.runs.model(run), loader)
        classes, images, groups = distinct_covers(record.known_labels, 1, MOST_IMAGES, seed)
        places = distinct.blocks(record.ids)
        found = cover_separation(record, classes, images, groups, seed, SHUFFLES, places)
        names = [record.classes[index] for index in classes]
        _draw(record, found, names, images, groups, folder)
        blocks = places[images]
        statistics = _statistics(record, images, groups, blocks, seed)
        nmi, control = (resample(one, blocks, seed, draws) for one in statistics)
        differ = found.pairs < PAIR_P  # (C, C), symmetric
        return {
            "classes": list(classes),
            "images": found.images.tolist(),
            "nmi": float(found.nmi.mean()),
            "above": nmi.minus(control).interval(),
            "p": found.p_value,
            "smallest_p": found.smallest_p,
            "areas": len(np.unique(blocks)),
            "undecidable": int((found.smallest_pairs >= PAIR_P).sum()) // 2,
            "pairs": [int(differ.sum()) // 2, len(differ) * (len(differ) - 1) // 2],
            "most": [names[int(differ.sum(axis=1).argmax())], int(differ.sum(axis=1).max())],
        }

    inputs = {"weights": run.digest, "data": distinct.digest("test", run.config), "seed": seed, "draws": draws,
              "dealt": "areas"}  # fmt: skip  # the permuted units; an input keeps its name
    return context.cache.stage(f"sanity/routing/{run.name}", inputs, work)


def _statistics(
    record: RoutingRecord, images: np.ndarray, groups: np.ndarray, blocks: np.ndarray, seed: int
) -> list[Statistic]:
    """Of weighted images, mean over the blocks: NMI of best expert and cover, and its mean over permuted covers."""
    counts = [of_block[images] for of_block in best_by_image(record)]
    random = np.random.default_rng(derive_seed(seed, "covers dealt anew"))  # kept: it decides the permutations

    def statistic(several: list[np.ndarray]) -> Statistic:
        hot = np.array([of == np.arange(groups.max() + 1)[:, None] for of in several], float)  # (R, C, m)
        return lambda weights: float(np.mean([mutual_information((hot * weights) @ block) for block in counts]))

    return [
        statistic([groups]),
        statistic([groups[permute_blocks(blocks, len(groups), random)] for _ in range(CONTROL_DRAWS)]),
    ]


def _draw(
    record: RoutingRecord,
    found: CoverSeparation,
    names: Sequence[str],
    images: np.ndarray,
    groups: np.ndarray,
    folder: Path,
) -> None:
    shares = {}
    for block in (record.blocks[row] for row in first_middle_last(len(record.blocks))):
        best = block.expert_idx[images, record.num_prefix :, 0]
        shares[f"block {block.block}"] = np.array([
            [(best[groups == group] == expert).mean() for expert in range(block.experts)] for group in range(len(names))
        ])  # fmt: skip
    save_figure(plot_share_matrices(shares, names, "Best expert of patch tokens by cover"), folder / "covers.png")
    save_figure(
        plot_pairs(found.pairs, names, "Difference in expert usage between two covers", "p"), folder / "pairs.png"
    )


def _row(title: str, stage: Stage) -> list[Cell]:
    found = stage.result
    differ, pairs = found["pairs"]
    return [title, Value(found["nmi"], digits=3), Value(*found["above"], digits=3), Value(found["p"], digits=3),
            f"{differ} of {pairs}"]  # fmt: skip
