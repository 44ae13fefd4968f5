"""Analyses of the experts of one encoder: arrays for tables, pictures into a folder.

Dimensions: n images, L blocks with experts, E experts of the widest block, M experts in all, R draws of a bootstrap.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.loader import BatchLoader
from datasets.patches import Batch, PatchDataset
from datasets.simulator.truth import ground_truth
from eval.experts.ablation import ablate_experts
from eval.experts.contribution import ablation_map, contribution_shares, contributions
from eval.experts.routing import (
    RoutingRecord,
    assignment_map,
    choices_by_image,
    dead_experts,
    label_information,
    record_routing,
    routing_entropy,
    usage_by_class,
    usage_by_token,
)
from eval.experts.specialisation import token_cover, token_information, token_statistics, usage_by_cover
from eval.panels import digital_numbers_of
from eval.probing.projection import project
from eval.statistics.bootstrap import ANY, SHARE, Interval, Limits, Resampled, resample
from eval.statistics.weighted_metrics import Statistic
from models.inference.embedder import Embedder
from models.masking import visible_unless_all
from models.moe_mae import MOEMAE
from studies.experts.figures import (
    plot_assignment_maps,
    plot_information,
    plot_planes,
    plot_share_matrices,
    plot_value_maps,
)
from utils.analysis_utils import save_figure
from utils.data_config import BigEarthNetInfo
from utils.files import write_npz

SHOWN = 4
"""Images whose maps are drawn, evenly spread over the split."""

SHUFFLES = 20
"""Permutations of each null distribution."""

ABOVE = ("cover_minus_shuffled", "cover_minus_turned")
"""NMI with land cover above that with permuted covers, and above that with the image's own cover map rotated."""

MEAN_DRAWS = "mean_draws.npz"

FEWEST_PROJECTED = 8
"""Images; fewer make no picture."""

TOKENS_PROJECTED = 1000
"""Patch tokens on a plane: enough for a picture, few enough for t-SNE in seconds."""


class ExpertAnalysis(NamedTuple):
    """An encoder, the images it is analysed on, and the settings of the analysis."""

    model: MOEMAE
    loader: BatchLoader
    """Of at most some thousand images."""
    truth: Path | None
    """The folder of a simulation with the true land cover; None where it is not known."""
    title: str
    """Of the encoder and the data, for figures."""
    seed: int
    draws: int
    """Of a bootstrap."""
    blocks: Callable[[list[str]], np.ndarray]
    """From ids to the bootstrap's blocks of neighbouring patches."""

    @property
    def dataset(self) -> PatchDataset:
        return self.loader.dataset

    def cover(self, ids: list[str]) -> np.ndarray | None:
        """(n, N) land cover of every patch token; None where it is not known."""
        return None if self.truth is None else token_cover(ground_truth(self.truth, ids), self.model.config.patch_size)

    def resampled(self, statistic: Statistic, ids: list[str], limits: Limits = ANY) -> Resampled:
        return resample(statistic, self.blocks(ids), self.seed, self.draws, limits=limits)


# --------------------------------------------------------------------------- routing


def view_routing(analysis: ExpertAnalysis, folder: Path) -> dict[str, Any]:
    """Usage, entropy, dead experts and specialisation.

    Returns:
        Plain values: `blocks` (indices in the encoder), `experts`, `usage` (an interval for each expert of each
        block), `gates_entropy`, `usage_entropy`, `dead`; `label_nmi` and `label_control` by block; where the ground is
        known `cover`, `cover_minus_shuffled`, `cover_minus_turned` (intervals by block), `mean_cover…` (over blocks).
        The draws of the latter go to `MEAN_DRAWS`, so that encoders can be compared on the same resampled images.
    """
    record = record_routing(analysis.model, analysis.loader)
    blocks = [routing.block for routing in record.blocks]
    entropy, areas = routing_entropy(record), analysis.blocks(record.ids)
    labels = label_information(record, analysis.seed, SHUFFLES, areas)
    some = first_middle_last(len(blocks))
    by_token = {f"block {blocks[row]}": usage_by_token(record)[row] for row in some}
    figure = plot_share_matrices(by_token, record.token_kinds, f"Expert usage by kind of token, {analysis.title}")
    save_figure(figure, folder / "token_kinds.png")
    cover = analysis.cover(record.ids)
    found = {
        "blocks": blocks,
        "experts": [routing.experts for routing in record.blocks],
        "images": len(record.ids),
        "usage": _usage_intervals(analysis, record),
        "gates_entropy": entropy.gates.tolist(),
        "usage_entropy": entropy.usage.tolist(),
        "dead": dead_experts(record),
        "label_nmi": labels.nmi.mean(axis=1).tolist(),
        "label_control": labels.shuffled.mean(axis=2).T.tolist(),
    }
    _draw_assignments(analysis, record, some, folder)
    nmi = {"image's labels (mean over classes)": labels.nmi.mean(axis=1)}
    controls = {"labels permuted between areas": labels.shuffled.mean(axis=2)}
    if cover is None:
        by_class = {f"block {blocks[row]}": usage_by_class(record)[row] for row in some}
        names, what = record.classes, "class of the image"
    else:
        information = token_information(record, cover, analysis.seed, SHUFFLES, areas)
        nmi = {"cover under the token": information.nmi, **nmi}
        controls |= {"covers permuted between areas": information.shuffled, "own cover map rotated": information.turned}
        names, what = BigEarthNetInfo.CLASSES, "land cover under the token"
        by_class = {f"block {blocks[row]}": usage_by_cover(record, cover, len(names))[row] for row in some}
        found |= _cover_intervals(analysis, record, cover, folder)
    save_figure(
        plot_share_matrices(by_class, names, f"Expert usage by {what}, {analysis.title}"), folder / "covers.png"
    )
    figure = plot_information(nmi, controls, blocks, f"Information in a patch token's best expert, {analysis.title}")
    save_figure(figure, folder / "information.png")
    return found


def _usage_intervals(analysis: ExpertAnalysis, record: RoutingRecord) -> list[list[Interval]]:
    """Of every block each expert's share of the choices, with its interval."""
    found = []
    for block in record.blocks:
        counts = choices_by_image(block.expert_idx, block.experts)
        shares = [_ratio(counts[:, expert], counts.sum(axis=1)) for expert in range(block.experts)]
        found.append([analysis.resampled(share, record.ids, SHARE).interval() for share in shares])
    return found


def _ratio(part: np.ndarray, whole: np.ndarray) -> Statistic:
    return lambda weights: float(weights @ part / (weights @ whole))


def _cover_intervals(
    analysis: ExpertAnalysis, record: RoutingRecord, cover: np.ndarray, folder: Path
) -> dict[str, Any]:
    """NMI of expert and land cover by block and their mean, and its excess over the nulls, with intervals."""
    blocks = analysis.blocks(record.ids)
    several = [
        [analysis.resampled(statistic, record.ids) for statistic in block]
        for block in token_statistics(record, cover, analysis.seed, SHUFFLES, blocks)
    ]
    found: dict[str, Any] = {"cover": [nmi.value for nmi, _, _ in several]}
    found["mean_cover"] = float(np.mean(found["cover"]))
    means = {}
    for column, name in enumerate(ABOVE, start=1):
        above = [block[0].minus(block[column]) for block in several]
        found[name] = [one.interval() for one in above]
        mean = above[0]._replace(
            value=float(np.mean([one.value for one in above])), draws=np.mean([one.draws for one in above], axis=0)
        )
        found[f"mean_{name}"], means[name] = mean.interval(), mean
    found["draws"] = [means[ABOVE[0]].blocks, means[ABOVE[0]].key]
    write_npz(folder / MEAN_DRAWS, {name: mean.draws for name, mean in means.items()})
    return found


def mean_above(found: dict[str, Any], folder: Path, name: str) -> Resampled:
    """The result of `view_routing` for the mean over the blocks, ready for a paired difference; `name` of `ABOVE`."""
    with np.load(folder / MEAN_DRAWS) as draws:
        return Resampled(found[f"mean_{name}"][0], draws[name], *found["draws"])


def _draw_assignments(analysis: ExpertAnalysis, record: RoutingRecord, rows: list[int], folder: Path) -> None:
    places = _shown(len(record.ids))
    ids = [record.ids[place] for place in places]
    blocks = [record.blocks[row].block for row in rows]
    maps = [{f"block {block}": assignment_map(record, place, block) for block in blocks} for place in places]
    title = f"Best expert of each patch token, {analysis.title}"
    save_figure(
        plot_assignment_maps(digital_numbers_of(analysis.dataset, ids), maps, ids, title), folder / "assignment.png"
    )


# --------------------------------------------------------------------------- contribution and ablation


def view_contributions(analysis: ExpertAnalysis, folder: Path) -> dict[str, Any]:
    """Shares of contribution, and maps of contribution and of ablation of the experts of a middle block.

    Returns:
        `shares`, (L, E) with None where there is no such expert; `updates`, (L,), the norm of what a block's experts
        add together relative to the token's; `block`, the one on the maps.
    """
    shares, updates = contribution_shares(analysis.model, analysis.loader)
    blocks = [block for block, count in enumerate(analysis.model.config.experts) if count > 1]
    block = blocks[len(blocks) // 2]
    batch = _shown_batch(analysis)
    images, grid = digital_numbers_of(analysis.dataset, batch.ids), analysis.model.config.grid
    visible = visible_unless_all(batch.valid, analysis.model.config.patch_size)
    several = contributions(analysis.model, batch.images, batch.meta, visible)
    added = next(found for found in several if found.block == block)
    patches = (added.experts / added.residual.unsqueeze(-1))[:, analysis.model.config.num_prefix :]
    relative = patches.unflatten(1, (grid, grid)).cpu().numpy()
    experts = range(relative.shape[-1])
    maps = [{f"expert {expert}": image[..., expert] for expert in experts} for image in relative]
    title = f"Contribution of the experts of block {block} to each patch token, {analysis.title}"
    figure = plot_value_maps(images, maps, batch.ids, title, "||g f|| / ||token||")
    save_figure(figure, folder / "contribution_maps.png")
    missed = [ablation_map(analysis.model, batch.images, batch.meta, block, expert, visible) for expert in experts]
    maps = [{f"without {expert}": missed[expert].end[row] for expert in experts} for row in range(len(batch.ids))]
    title = f"Change of each patch token at the encoder's end without an expert of block {block}, {analysis.title}"
    figure = plot_value_maps(images, maps, batch.ids, title, "||y' - y|| / ||y||")
    save_figure(figure, folder / "ablation_maps.png")
    whole = [[None if np.isnan(share) else share for share in row] for row in shares.tolist()]
    return {"shares": whole, "updates": updates.tolist(), "block": block}


def view_ablation(analysis: ExpertAnalysis, folder: Path) -> dict[str, Any]:
    """How much the masked loss rises without each expert, on the same masks and resampled images.

    Returns:
        `loss` of the whole model, and `rises`, M intervals.
    """
    found = ablate_experts(analysis.model, analysis.loader, analysis.seed)
    whole, *without = (analysis.resampled(_ratio(errors, found.weights), found.ids) for errors in found.errors)
    return {"loss": found.masked_loss, "rises": [one.minus(whole).interval() for one in without]}


# --------------------------------------------------------------------------- on a plane


def view_planes(analysis: ExpertAnalysis, folder: Path) -> dict[str, Any]:
    """Two-dimensional projections of patch tokens, and of whole images by their mean, by t-SNE and PCA.

    Tokens are coloured by their best expert in the last block with experts and by the land cover under them, images
    by their label.

    Returns:
        `tokens` and `images`, how many are drawn.
    """
    order = np.sort(np.random.default_rng(analysis.seed).permutation(len(analysis.dataset))[:TOKENS_PROJECTED]).tolist()
    record = record_routing(analysis.model, analysis.loader, order)
    embedder, config = Embedder(analysis.model, "all"), analysis.model.config
    batches = (batch for batch in analysis.loader.batches(order) if batch.ids)
    parts = [embedder(batch.images, batch.meta, batch.valid).cpu().numpy() for batch in batches]
    tokens = np.concatenate(parts).reshape(-1, config.num_tokens, config.embed_dim)[:, config.num_prefix :]
    random = np.random.default_rng(analysis.seed)
    each = max(1, TOKENS_PROJECTED // len(tokens))
    chosen = np.stack([random.permutation(tokens.shape[1])[:each] for _ in tokens])  # (n, each)
    last = record.blocks[-1]
    best = np.take_along_axis(last.expert_idx[:, record.num_prefix :, 0], chosen, axis=1).ravel()
    colours = {f"best expert in block {last.block}": (best, [f"expert {expert}" for expert in range(last.experts)])}
    cover = analysis.cover(record.ids)
    if cover is not None:
        under = np.take_along_axis(cover, chosen, axis=1).ravel()
        colours["land cover under the token"] = (under, [*BigEarthNetInfo.CLASSES, "another"])  # -1 is the last one
    vectors = np.take_along_axis(tokens, chosen[..., None], axis=1).reshape(-1, tokens.shape[-1])
    seen = best >= 0
    vectors, colours = vectors[seen], {name: (values[seen], names) for name, (values, names) in colours.items()}
    _draw_planes(analysis, vectors, colours, "Patch tokens", folder / "tokens.png")
    if len(tokens) >= FEWEST_PROJECTED:
        hot = record.known_labels
        label = np.where(hot.sum(axis=1) == 1, hot.argmax(axis=1), len(record.classes))
        colours = {"label": (label, [*record.classes, "several labels, or none"])}
        _draw_planes(
            analysis, tokens.mean(axis=1), colours, "Images, mean of their patch tokens", folder / "images.png"
        )
    return {"tokens": len(vectors), "images": len(tokens)}


def _draw_planes(
    analysis: ExpertAnalysis, x: np.ndarray, colours: dict[str, tuple[np.ndarray, list[str]]], what: str, path: Path
) -> None:
    found = [project(x, method, analysis.seed) for method in ("tsne", "pca")]
    panels = {
        f"{one.method}, by {name}": (one.points, classes, names)
        for name, (classes, names) in colours.items()
        for one in found
    }
    save_figure(plot_planes(panels, f"{what}, {analysis.title}"), path)


# --------------------------------------------------------------------------- parts


def first_middle_last(count: int) -> list[int]:
    """Rows of the first, a middle and the last block."""
    return sorted({0, count // 2, count - 1})


def _shown(count: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, count - 1, SHOWN)})


def _shown_batch(analysis: ExpertAnalysis) -> Batch:
    return next(batch for batch in analysis.loader.batches(_shown(len(analysis.dataset))) if batch.ids)
