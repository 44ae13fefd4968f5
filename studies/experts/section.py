"""Analysis of the experts: usage, specialisation, contribution, and ablation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.experts.contribution import embeddings_without_experts
from eval.probing.protocols import strong_probe
from eval.probing.representation import Vectors
from eval.statistics.bootstrap import SHARE
from eval.statistics.weighted_metrics import Statistic, decisions_of, micro_map, share_right
from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.encoders import first_seed, trained, untrained_twin
from studies.engine.runs import Run
from studies.engine.scoring import METRIC_TITLES, PERCENT, headline
from studies.engine.stages import Stage
from studies.engine.subset import some, subset, truth_folder
from studies.experts.figures import plot_expert_table
from studies.experts.tables import (
    Studied,
    block_table,
    encoder_table,
    expert_figures,
    expert_table,
    learned_claims,
    sentences,
)
from studies.experts.views import (
    ExpertAnalysis,
    view_ablation,
    view_contributions,
    view_planes,
    view_routing,
)
from studies.report_parts.sections import Section
from utils.analysis_utils import save_figure

MOST_PATCHES = 2000
"""Test patches that the experts are analysed on: 60 experts are removed in turn, on every patch."""

PARTS: dict[str, Callable[[ExpertAnalysis, Path], Any]] = {
    "routing": view_routing,
    "contributions": view_contributions,
    "ablation": view_ablation,
    "planes": view_planes,
}


def experts_section(context: StudyContext) -> Section:
    """The experts of pretrained encoders and of untrained ones like them, on test patches of the main dataset."""
    source = context.data.main
    ids = source.dataset("test").ids
    if len(ids) > MOST_PATCHES:
        source = subset(context, source, "experts", some(ids, MOST_PATCHES, context.config.seed))
    studied = _all_studied(context, source)
    if not studied:
        return Section("Experts", ["No encoder has a block with several experts: there is no routing to analyse."])
    metric = METRIC_TITLES[headline(source)]
    fold = " of the first fold" if len(source.folds) > 1 else ""
    where = f"{len(source.dataset('test').ids):,} {source.patches()}{fold}, not pretrained on"
    tables = [learned_claims(studied, where), encoder_table(studied, where)]
    for one in studied:
        if one.twin is not None:
            tables += [expert_table(one, metric, where), block_table(one, where)]
    figures = [figure for one in studied for figure in expert_figures(one)]
    text = [
        "Routing is recorded on whole images, without routing noise. Every measure of specialisation has a null "
        "distribution from a permutation test: only an excess over it is evidence of specialisation in land cover."
        + (
            ""
            if truth_folder(context, source)
            else " The land cover under a token is not known for these "
            "patches, so specialisation is measured by their images' labels only."
        ),
        *(sentence for one in studied for sentence in sentences(one, metric)),
        *first_seed(context),
    ]
    return Section("Experts", text, tables, figures)


# --------------------------------------------------------------------------- what is done


def _all_studied(context: StudyContext, source: Source) -> list[Studied]:
    """Every pretrained encoder that has experts, after the untrained one of its own architecture."""
    found: dict[str, Studied] = {}
    for encoder in trained(context):
        run, twin = encoder.run(encoder.seeds[0], 0), untrained_twin(context, encoder)
        if all(count == 1 for count in run.config.experts):
            continue
        if twin.name not in found:
            found[twin.name] = _study(context, source, twin.run(twin.seeds[0], 0), twin.title)
        found[encoder.name] = _study(context, source, run, encoder.title, found[twin.name])
    return list(found.values())


def _study(context: StudyContext, source: Source, run: Run, title: str, twin: Studied | None = None) -> Studied:
    """Analyse an encoder; without a `twin` it is an untrained one, of which only the routing is analysed."""
    loader = source.loader("test", context.runs.device, run.config)
    truth = truth_folder(context, source)
    draws = context.config.bootstrap.draws
    inputs = {"weights": run.digest, "data": source.digest("test", run.config), "seed": context.config.seed,
              "draws": draws, "truth": truth is not None}  # fmt: skip

    def stage(part: str, view: Callable[[ExpertAnalysis, Path], Any], **more: Any) -> Stage:
        def work(folder: Path) -> Any:
            what = f"{title}, {loader.dataset.kind}"
            analysis = ExpertAnalysis(
                context.runs.model(run), loader, truth, what, context.config.seed, draws, source.blocks
            )
            return view(analysis, folder)

        return context.cache.stage(f"experts/{run.name}/{part}", inputs | more, work)

    parts = {"routing": view_routing} if twin is None else PARTS
    more = {"routing": {"dealt": "areas"}}  # an input of finished stages: labels are permuted between areas
    stages = {part: stage(part, view, **more.get(part, {})) for part, view in parts.items()}
    if twin is not None:
        pool = next((pool for pool in context.config.embed.pools if pool != "all"), "mean")
        fitted = {
            split: context.runs.embeddings(run, pool, split)
            for split in ("train", "val")
            if context.data.main.split_file(split)
        }
        train, val = fitted["train"].vectors, fitted["val"].vectors if "val" in fitted else None
        stages["probe"] = stage(
            "probe",
            lambda analysis, folder: probe_without(analysis, train, val, source.classes, pool),
            pool=pool,
            fitted={split: represented.digest for split, represented in fitted.items()},
        )
        results = {part: one.result for part, one in stages.items()}
        digests = {part: one.digest for part, one in stages.items()}
        stages["overview"] = stage(
            "overview", lambda analysis, folder: draw_overview(analysis, results, folder), parts=digests
        )
    return Studied(run, title, stages, twin)


def probe_without(
    analysis: ExpertAnalysis, train: Vectors, val: Vectors | None, classes: Sequence[str], pool: str
) -> dict[str, Any]:
    """Probe scores on embeddings without each expert, by a probe fitted once on whole embeddings.

    Returns:
        `whole`, the headline metric with whole embeddings, and `drops`, how much lower it is without each expert, as
        intervals of paired differences (fractions), in the order of blocks and experts.
    """
    found = embeddings_without_experts(analysis.model, analysis.loader, pool)
    several = np.concatenate([found.whole[None], found.without])  # (1 + M, n, D), all scored by one fitted probe
    copies = len(several)
    if found.labels is None:
        raise ValueError("a probe needs a dataset that was read with labels")
    labels, known = np.concatenate([found.labels] * copies), found.labels
    stacked = Vectors(several.reshape(-1, several.shape[-1]), labels, list(found.ids) * copies)
    scores = strong_probe(train, val, stacked, classes, seed=analysis.seed)
    parts = scores.scores.reshape(copies, len(found.ids), -1)
    whole, *without = (analysis.resampled(_headline(known, part), found.ids, SHARE) for part in parts)
    drops = [whole.minus(one).interval() for one in without]
    return {"whole": whole.interval(), "drops": drops, "C": scores.details["C"]}


def draw_overview(analysis: ExpertAnalysis, results: dict[str, Any], folder: Path) -> None:
    """One picture of all measures of every expert."""
    routing, blocks = results["routing"], results["routing"]["blocks"]

    def matrix(values: Sequence[float]) -> np.ndarray:
        """M numbers to (L, E)."""
        rows = np.full((len(blocks), max(routing["experts"])), np.nan)
        rows[np.arange(rows.shape[1]) < np.array(routing["experts"])[:, None]] = values
        return rows

    usage = [PERCENT * share[0] for block in routing["usage"] for share in block]
    shares = [PERCENT * share for block in results["contributions"]["shares"] for share in block if share is not None]
    rises = [rise[0] for rise in results["ablation"]["rises"]]
    changes = [-PERCENT * drop[0] for drop in results["probe"]["drops"]]
    loss, whole = results["ablation"]["loss"], PERCENT * results["probe"]["whole"][0]
    panels = {
        "share of its block's choices, %": (matrix(usage), False, 1),
        "share of what its block's experts add, %": (matrix(shares), False, 1),
        f"masked loss without it (whole {loss:.2f})": (matrix(rises), True, 3),
        f"probe without it, points (whole {whole:.1f})": (matrix(changes), True, 2),
    }
    save_figure(plot_expert_table(panels, blocks, f"Every expert, {analysis.title}"), folder / "experts.png")


def _headline(labels: np.ndarray, scores: np.ndarray) -> Statistic:
    """Landsat-Bench's figure of probabilities (n, L)."""
    return micro_map(labels, scores) if labels.ndim == 2 else share_right(labels, decisions_of(scores, False))
