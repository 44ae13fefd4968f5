"""Sanity: does an encoder use the metadata it is conditioned on? Own, missing, and another patch's metadata."""

from functools import partial
from pathlib import Path

from eval.statistics.bootstrap import Resampled
from studies.comparison.main_table import POOL_TITLES
from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.embedding import Metadata, MetadataLoader
from studies.engine.encoders import MAIN, UNTRAINED, Encoder, encoders, first_seed
from studies.engine.masked_losses import MODEL, losses_over_folds
from studies.engine.scoring import METRIC_TITLES, Scored, difference, headline, interval, score
from studies.report_parts.figures import plot_intervals
from studies.report_parts.sections import Cell, Figure, Section, Table, Value
from studies.report_parts.verdicts import ABOVE, side
from utils.analysis_utils import save_figure

TITLE = "Sanity: metadata ablation"
PROTOCOL = "strong_probe"
ABLATED: tuple[Metadata, ...] = ("missing", "shuffled")
WORDS: dict[Metadata, str] = {"given": "its own", "missing": "missing", "shuffled": "another patch's"}


def metadata_section(context: StudyContext) -> Section:
    """Masked loss, and a probe fitted and scored, with a patch's own metadata, without, and with another patch's."""
    source = context.data.main
    if not source.has_metadata:
        return Section(TITLE, [f"Not run: {source.patches()} have no metadata."])
    tried = {encoder.name: encoder for encoder in encoders(context) if encoder.seeds and encoder.name != UNTRAINED}
    pooling, metric = context.config.study.pool, headline(source)
    pools = [pooling, *(pool for pool in context.config.embed.pools if pool not in (pooling, "all"))]
    rows: list[list[Cell]] = []
    drops: dict[tuple[str, str], dict[Metadata, Value | None]] = {}
    rises: dict[str, dict[Metadata, Value]] = {}
    for name, encoder in tried.items():
        losses = {condition: _loss(context, encoder, source, condition) for condition in WORDS}
        rises[name] = {
            condition: Value.of(losses[condition].minus(losses["given"]).interval(), digits=3) for condition in ABLATED
        }
        for pool in pools:
            scores = {condition: _scored(context, encoder, source, pool, condition) for condition in WORDS}
            lost: dict[Metadata, Value | None] = {
                condition: difference(context, scores["given"], scores[condition], metric) for condition in ABLATED
            }
            drops[name, pool] = lost
            for condition, words in WORDS.items():
                loss: list[Cell] = [None, None]  # the same for all pools
                if pool == pooling:
                    loss = [Value.of(losses[condition].interval(), digits=2), rises[name].get(condition)]
                title = f"{encoder.title}, {POOL_TITLES[pool]}; {words}"
                rows.append([title, interval(context, scores[condition], metric), lost.get(condition), *loss])
    title = METRIC_TITLES[headline(source)]
    columns = ["encoder; metadata", f"{title}, %", f"{title} lost, points", "masked loss", "masked loss gained"]
    note = (
        "The probe (standardised, C chosen, converged) is fitted and scored under the same "
        "condition. Losses are on the same masks. Brackets: 95 % interval; of differences, paired on the same "
        "resampled patches."
    )
    table = Table("sanity_metadata", "With and without metadata", columns, rows, source.measured_on(), note)
    gap = drops[MAIN, pooling]["shuffled"]
    passed = side(gap) == ABOVE
    bounds = None if gap is None else gap.bounds
    ends = f" (95 % CI {bounds[0]:+.2f} to {bounds[1]:+.2f})" if bounds else ""
    difference_words = "not defined" if gap is None else f"{gap.value:+.2f} points{ends}"
    text = [
        f"Criterion: the {title} of a probe on the main encoder's {POOL_TITLES[pooling]} is higher with a patch's own "
        "metadata than with another patch's, the whole 95 % interval of the difference above 0.",
        f"The difference is {difference_words}: {'passed' if passed else 'NOT passed'}.",
        *(_reconstruction(tried[name], rises[name]) for name in tried),
        *first_seed(context),
    ]
    return Section(TITLE, text, [table], [_figure(context, tried, drops, title)], passed)


def _scored(context: StudyContext, encoder: Encoder, source: Source, pool: str, condition: Metadata) -> Scored:
    representation = encoder.representation(context, source, pool, encoder.seeds[0], condition)
    return score(context, f"sanity/{encoder.name}/{pool}_{condition}", PROTOCOL, representation, source=source)


def _loss(context: StudyContext, encoder: Encoder, source: Source, condition: Metadata) -> Resampled:
    """Masked loss on the test patches, each by the run of the fold that tests it."""
    runs, seed = [encoder.run(encoder.seeds[0], fold) for fold in range(len(source.folds))], context.config.seed
    name = f"sanity/metadata/{encoder.name}_{condition}"
    shown = partial(MetadataLoader, metadata=condition, seed=seed)
    return losses_over_folds(context, name, source, runs, {"metadata": condition}, wrap=shown)[MODEL]


def _reconstruction(encoder: Encoder, rises: dict[Metadata, Value]) -> str:
    """Whether metadata help an encoder to reconstruct masked patches, in words."""
    if all(side(rise) == ABOVE for rise in rises.values()):
        return f"{encoder.title}: metadata also help to reconstruct masked patches."
    return (
        f"{encoder.title}: no significant evidence that metadata help to reconstruct masked patches (masked loss with "
        f"another patch's {rises['shuffled'].value:+.3f}, with none {rises['missing'].value:+.3f})."
    )


def _figure(
    context: StudyContext,
    tried: dict[str, Encoder],
    drops: dict[tuple[str, str], dict[Metadata, Value | None]],
    title: str,
) -> Figure:
    values = {f"{tried[name].title}, {pool}; {WORDS[condition]}": drop for (name, pool), found in drops.items()
              for condition, drop in found.items() if drop is not None}  # fmt: skip

    def work(folder: Path) -> None:
        save_figure(plot_intervals(values, f"Lost without a patch's own metadata: {title}", "percentage points"),
                    folder / "metadata.png")  # fmt: skip

    inputs = {name: [value.value, value.low, value.high] for name, value in values.items()}
    stage = context.cache.stage("sanity/metadata/figure", inputs, work, quiet=True)
    return Figure(stage.folder / "metadata.png", f"{title} lost when metadata are missing or another patch's.")
