"""Sanity: does an encoder use the metadata it is given? Its own, none, and those of another patch."""

from functools import partial
from pathlib import Path
from typing import Any

from studies.comparison.main_table import POOL_TITLES
from studies.engine.context import Bench
from studies.engine.data import Source
from studies.engine.embedding import Metadata, MetadataLoader
from studies.engine.encoders import MAIN, UNTRAINED, Encoder, encoders, first_seed
from studies.engine.masked_losses import MODEL, losses_over_folds
from studies.engine.scoring import METRIC_TITLES, difference, headline, interval, score
from studies.report_parts.figures import plot_intervals
from studies.report_parts.sections import Cell, Figure, Section, Table, Value
from studies.report_parts.verdicts import ABOVE, side
from utils.analysis_utils import save_figure

TITLE = "Sanity: metadata ablation"
PROTOCOL = "strong_probe"
ABLATED: tuple[Metadata, ...] = ("missing", "shuffled")
WORDS = {"given": "its own", "missing": "missing", "shuffled": "another patch's"}


def metadata_section(bench: Bench) -> Section:
    """Masked loss, and a probe fitted and scored, with a patch's own metadata, without, and with another patch's."""
    source = bench.data.main
    if source.dataset("test").gather(range(1)).columns is None:
        return Section(TITLE, [f"Not run: {source.patches()} have no metadata."])
    tried = {encoder.name: encoder for encoder in encoders(bench) if encoder.seeds and encoder.name != UNTRAINED}
    judged, metric = bench.config.study.pool, headline(source)
    pools = [judged, *(pool for pool in bench.config.embed.pools if pool not in (judged, "all"))]
    rows, drops, rises = [], {}, {}
    for name, encoder in tried.items():
        losses = {told: _loss(bench, encoder, source, told) for told in WORDS}
        rises[name] = {told: Value(*losses[told].minus(losses["given"]).interval(), digits=3) for told in ABLATED}
        for pool in pools:
            scores = {told: _scored(bench, encoder, source, pool, told) for told in WORDS}
            lost = {told: difference(bench, scores["given"], scores[told], metric) for told in ABLATED}
            drops[name, pool] = lost
            for told, words in WORDS.items():
                loss: list[Cell] = [None, None]  # the same for all pools
                if pool == judged:
                    loss = [Value(*losses[told].interval(), digits=2), rises[name].get(told)]
                rows.append([f"{encoder.title}, {POOL_TITLES[pool]}; {words}", interval(bench, scores[told], metric),
                             lost.get(told), *loss])  # fmt: skip
    title = METRIC_TITLES[headline(source)]
    columns = ["encoder; metadata", f"{title}, %", f"{title} lost, points", "masked loss", "masked loss gained"]
    note = (
        "The probe (standardised, C chosen, converged) is fitted and scored under the same "
        "condition. Losses are on the same masks. Brackets: 95 % interval; of differences, paired on the same "
        "resampled patches."
    )
    table = Table("sanity_metadata", "With and without metadata", columns, rows, source.measured_on(), note)
    mark = drops[MAIN, judged]["shuffled"]
    passed = side(mark) == ABOVE
    ends = "" if mark.low is None else f" ({mark.low:+.2f} to {mark.high:+.2f})"
    text = [
        f"Mark: the {title} of a probe on the main encoder's {POOL_TITLES[judged]} is higher with a patch's own "
        "metadata than with another patch's, the whole 95 % interval of the difference above 0.",
        f"The difference is {mark.value:+.2f} points{ends}: {'passed' if passed else 'NOT passed'}.",
        *(_reconstruction(tried[name], rises[name]) for name in tried),
        *first_seed(bench),
    ]
    return Section(TITLE, text, [table], [_figure(bench, tried, drops, title)], passed)


def _scored(bench: Bench, encoder: Encoder, source: Source, pool: str, told: Metadata) -> Any:
    seed = encoder.seeds[0]

    def describe(split: str, fold: int):
        run = encoder.run(seed, fold)
        return bench.runs.embeddings(run, pool, split, source=source, fold=fold, metadata=told)

    return score(bench, f"sanity/{encoder.name}/{pool}_{told}", PROTOCOL, describe, source=source)


def _loss(bench: Bench, encoder: Encoder, source: Source, told: Metadata) -> Any:
    """Masked loss on the test patches, each by the run of the fold that tests it."""
    runs, seed = [encoder.run(encoder.seeds[0], fold) for fold in range(len(source.folds))], bench.config.seed
    name = f"sanity/metadata/{encoder.name}_{told}"
    shown = partial(MetadataLoader, metadata=told, seed=seed)
    return losses_over_folds(bench, name, source, runs, {"metadata": told}, wrap=shown)[MODEL]


def _reconstruction(encoder: Encoder, rises: dict[str, Value]) -> str:
    """Whether metadata help an encoder to fill in masked patches, in words."""
    if all(side(rise) == ABOVE for rise in rises.values()):
        return f"{encoder.title}: metadata help to fill in masked patches, too."
    return (
        f"NOT supported by these data: that metadata help {encoder.title} to fill in masked patches (masked loss with "
        f"another patch's {rises['shuffled'].value:+.3f}, with none {rises['missing'].value:+.3f})."
    )


def _figure(
    bench: Bench, tried: dict[str, Encoder], drops: dict[tuple[str, str], dict[str, Value | None]], title: str
) -> Figure:
    values = {f"{tried[name].title}, {pool}; {WORDS[told]}": drop for (name, pool), found in drops.items()
              for told, drop in found.items() if drop is not None}  # fmt: skip

    def work(folder: Path) -> None:
        save_figure(plot_intervals(values, f"Lost without a patch's own metadata: {title}", "percentage points"),
                    folder / "metadata.png")  # fmt: skip

    inputs = {name: [value.value, value.low, value.high] for name, value in values.items()}
    stage = bench.workbench.stage("sanity/metadata/figure", inputs, work, quiet=True)
    return Figure(stage.folder / "metadata.png", f"{title} lost when metadata are missing or another patch's.")
