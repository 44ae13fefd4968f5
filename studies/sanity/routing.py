"""Sanity: do images of distinct land covers use the experts differently, more than chance would have it?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.experts.routing import RoutingRecord, best_by_image, mutual_information, record_routing
from eval.experts.specialisation import CoverSeparation, cover_separation, distinct_covers
from eval.statistics.block_permutation import deal
from eval.statistics.bootstrap import resample
from eval.statistics.weighted_metrics import Statistic
from studies.engine.context import Bench
from studies.engine.data import Source
from studies.engine.encoders import MAIN, encoders, first_seed
from studies.engine.runs import Run
from studies.engine.stages import Stage
from studies.engine.subset import subset
from studies.experts.figures import plot_pairs, plot_share_matrices
from studies.report_parts.sections import Cell, Figure, Section, Table, Value
from utils.analysis_utils import save_figure
from utils.randomness import derive_seed

LEAST_IMAGES = 4
"""Images with one label only that a class must have to be compared."""

MOST_IMAGES = 40
"""Taken of a class, so that the most frequent one does not decide."""

SHUFFLES = 199
"""Draws of the control: the smallest p-value is 1 / 200."""

PAIR_P = 0.05
"""Below it two covers are told apart."""

CONTROL_DRAWS = 20
"""Of the control that is subtracted, within the bootstrap."""

PASS_P = 0.01
"""The mark: covers dealt to the areas anew tell so much about the experts at most this often."""

TITLE = "Sanity: routing on distinct covers"


def routing_section(bench: Bench) -> Section:
    """Images with a single label, of all splits: routing needs no labels, so none of them has been learned from."""
    source = bench.data.main
    distinct = _distinct(bench, source)
    if distinct is None:
        return Section(TITLE, [f"Not run: fewer than two classes have {LEAST_IMAGES} patches with one label only."])
    found = {}
    for encoder in encoders(bench):
        if encoder.seeds:
            run = encoder.run(encoder.seeds[0], 0)
            if any(count > 1 for count in run.config.experts):
                found[encoder.name] = (encoder.title, _compared(bench, distinct, run))
    if MAIN not in found:
        return Section(TITLE, ["Not run: the model has one expert in every block."])
    results = {name: stage.result for name, (_, stage) in found.items()}
    main, where = results[MAIN], f"{len(distinct.dataset('test').ids)} {source.patches()} with one label only"
    names = [source.classes[index] for index in main["classes"]]
    passed = main["p"] <= PASS_P if main["smallest_p"] <= PASS_P else None
    rows = [_row(title, stage) for title, stage in found.values()]
    columns = ["encoder", "NMI with cover", "above covers dealt anew", "p", "pairs told apart"]
    note = (
        "NMI: normalised mutual information of a patch token's best expert with the cover of its image, mean over the "
        f"blocks. p: how often covers dealt anew, whole areas at a time, tell as much, of {SHUFFLES}. Pairs of covers "
        f"whose use of the experts differs, p below {PAIR_P}. Brackets: 95 % interval."
    )
    table = Table("sanity_routing", "Experts and distinct covers", columns, rows, where, note)
    text = [
        f"{where}: {', '.join(f'{n} {name}' for name, n in zip(names, main['images'], strict=True))}. Mark: the main "
        f"encoder's experts tell more about the cover than they would about covers dealt anew, p at most {PASS_P}.",
        f"p = {main['p']:.3f}: {_mark(main, passed)}. Pair by pair {main['pairs'][0]} of {main['pairs'][1]} are told "
        f"apart, {main['most'][1]} of them with {main['most'][0]} as one of the two{_undecidable(main)}.",
        "An untrained encoder's row stands beside it: its gates, never trained, tell bright covers from dark ones as "
        "well, so the mark says that routing depends on the cover, not that this was learned.",
        *first_seed(bench),
    ]
    stage = found[MAIN][1]
    figures = [
        Figure(stage.folder / "covers.png", "Which experts images of one cover use, in the first, a middle, the last "
               "block."),
        Figure(stage.folder / "pairs.png", "How likely so large a difference between two covers is by chance."),
    ]  # fmt: skip
    return Section(TITLE, text, [table], figures, passed)


def _mark(found: dict[str, Any], passed: bool | None) -> str:
    if passed is None:
        return (
            f"cannot be told, {found['areas']} areas are too few to reach {PASS_P} (at least {found['smallest_p']:.3f})"
        )
    return "passed" if passed else "NOT passed"


def _undecidable(found: dict[str, Any]) -> str:
    few = found["undecidable"]
    return f"; {few} cannot be, for their covers lie in too few areas" if few else ""


def _distinct(bench: Bench, source: Source) -> Source | None:
    """The patches compared; None where there are too few."""
    ids: list[str] = []
    labels: list[np.ndarray] = []
    for split in ("train", "val", "test"):
        if source.split_file(split):
            dataset = source.dataset(split)
            found = dataset.labels.numpy()
            hot = found > 0 if source.multilabel else found[:, None] == np.arange(len(source.classes))
            ids += dataset.ids
            labels.append(hot)
    classes, images, _ = distinct_covers(np.concatenate(labels), LEAST_IMAGES, MOST_IMAGES, bench.config.seed)
    return subset(bench, source, "distinct", [ids[index] for index in images]) if len(classes) > 1 else None


def _compared(bench: Bench, distinct: Source, run: Run) -> Stage:
    seed, draws = bench.config.seed, bench.config.bootstrap.draws
    loader = distinct.loader("test", bench.runs.device, run.config)

    def work(folder: Path) -> dict[str, Any]:
        record = record_routing(bench.runs.model(run), loader)
        classes, images, groups = distinct_covers(record.labels, 1, MOST_IMAGES, seed)
        places = distinct.blocks(record.ids)
        found = cover_separation(record, classes, images, groups, seed, SHUFFLES, places)
        names = [record.classes[index] for index in classes]
        _draw(record, found, names, images, groups, folder)
        blocks = places[images]
        statistics = _statistics(record, images, groups, blocks, seed)
        nmi, control = (resample(one, blocks, seed, draws) for one in statistics)
        told = found.pairs < PAIR_P  # (C, C), symmetric
        return {
            "classes": list(classes),
            "images": found.images.tolist(),
            "nmi": float(found.nmi.mean()),
            "above": nmi.minus(control).interval(),
            "p": found.p_value,
            "smallest_p": found.smallest_p,
            "areas": len(np.unique(blocks)),
            "undecidable": int((found.smallest_pairs >= PAIR_P).sum()) // 2,
            "pairs": [int(told.sum()) // 2, len(told) * (len(told) - 1) // 2],
            "most": [names[int(told.sum(axis=1).argmax())], int(told.sum(axis=1).max())],
        }

    inputs = {"weights": run.digest, "data": distinct.digest("test", run.config), "seed": seed, "draws": draws,
              "dealt": "areas"}  # fmt: skip
    return bench.workbench.stage(f"sanity/routing/{run.name}", inputs, work)


def _statistics(
    record: RoutingRecord, images: np.ndarray, groups: np.ndarray, blocks: np.ndarray, seed: int
) -> list[Statistic]:
    """Of weighted images, mean over the blocks: NMI of best expert and cover, and its mean over covers dealt anew."""
    counts = [of_block[images] for of_block in best_by_image(record)]
    random = np.random.default_rng(derive_seed(seed, "covers dealt anew"))

    def statistic(several: list[np.ndarray]) -> Statistic:
        hot = np.array([of == np.arange(groups.max() + 1)[:, None] for of in several], float)  # (R, C, m)
        return lambda weights: float(np.mean([mutual_information((hot * weights) @ block) for block in counts]))

    return [statistic([groups]), statistic([groups[deal(blocks, len(groups), random)] for _ in range(CONTROL_DRAWS)])]


def _draw(
    record: RoutingRecord,
    found: CoverSeparation,
    names: Sequence[str],
    images: np.ndarray,
    groups: np.ndarray,
    folder: Path,
) -> None:
    some = sorted({0, len(record.blocks) // 2, len(record.blocks) - 1})
    shares = {}
    for block in (record.blocks[row] for row in some):
        best = block.expert_idx[images, record.num_prefix :, 0]
        shares[f"block {block.block}"] = np.array([
            [(best[groups == group] == expert).mean() for expert in range(block.experts)] for group in range(len(names))
        ])  # fmt: skip
    save_figure(plot_share_matrices(shares, names, "Best expert of patch tokens by cover"), folder / "covers.png")
    save_figure(plot_pairs(found.pairs, names, "Do two covers use the experts alike?", "p"), folder / "pairs.png")


def _row(title: str, stage: Stage) -> list[Cell]:
    found = stage.result
    told, pairs = found["pairs"]
    return [title, Value(found["nmi"], digits=3), Value(*found["above"], digits=3), Value(found["p"], digits=3),
            f"{told} of {pairs}"]  # fmt: skip
