"""Tables, captions and sentences about experts for a report."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eval.statistics.bootstrap import Interval
from studies.comparison.claims import Claim, claims_table
from studies.engine.runs import Run
from studies.engine.scoring import PERCENT
from studies.engine.stages import Stage
from studies.experts.views import ABOVE, mean_above
from studies.report_parts.sections import Cell, Figure, Table, Value
from studies.report_parts.verdicts import ABOVE as MORE
from studies.report_parts.verdicts import BELOW, OPEN, side

CAPTIONS = {
    "experts": "Every expert: share of choices, share of contribution, and the change of reconstruction loss and "
    "probe score without it.",
    "information": "Normalised mutual information of a patch token's best expert and land cover, with null "
    "distributions.",
    "covers": "Usage by land cover, best expert of each patch token.",
    "token_kinds": "Usage by metadata, CLS and patch tokens, in the first, a middle and the last block.",
    "assignment": "Best expert of each patch token; the stronger the colour, the larger its gate.",
    "contribution_maps": "Contribution of each expert of a middle block, relative to the norm of the token that it is "
    "added to.",
    "ablation_maps": "How much each patch token at the encoder's end changes when an expert of that block is removed: "
    "through the block itself, with its norm and residual, and all later ones.",
    "tokens": "Two-dimensional projections of patch tokens. t-SNE keeps neighbourhoods; its distances between groups "
    "are not meaningful.",
    "images": "Two-dimensional projections of whole images.",
}
"""File name of a picture to its caption, in the order of the report."""


COVER_COLUMNS = ("NMI with cover", "above permuted covers", "above rotated covers")
LEARNED_CLAIMS = ("experts learn to follow land cover", "experts learn to follow land cover within images")
RELATIONS = {
    MORE: "significantly above",
    BELOW: "significantly below",
    OPEN: "not significantly different from",
    None: "(without confidence interval) compared with",
}
"""Where a difference lies, to the words between the two."""
LEARNED_COLUMNS = ("above permuted covers, minus untrained", "above rotated covers, minus untrained")


class Studied(NamedTuple):
    """An encoder and the results of its analysis."""

    run: Run
    title: str
    stages: dict[str, Stage]
    """By part: those of `PARTS`, "probe" and "overview"; of an untrained encoder "routing" only."""
    twin: "Studied | None" = None
    """The untrained encoder of the same architecture; None of an untrained one."""

    @property
    def heading(self) -> str:
        return self.title[0].upper() + self.title[1:]


def expert_table(one: Studied, metric: str, where: str) -> Table:
    routing, shares = one.stages["routing"].result, one.stages["contributions"].result["shares"]
    rises, probe = one.stages["ablation"].result["rises"], one.stages["probe"].result
    rows: list[list[Cell]] = []
    for line, (block, experts) in enumerate(zip(routing["blocks"], routing["experts"], strict=True)):
        for expert in range(experts):
            row = len(rows)
            rows.append([f"block {block}, expert {expert}", _value(routing["usage"][line][expert], PERCENT),
                         Value(PERCENT * shares[line][expert]), _value(rises[row], digits=3),
                         _value(probe["drops"][row], PERCENT, 2)])  # fmt: skip
    columns = ["expert", "share of choices, %", "share of contribution, %", "rise of masked loss",
               f"drop of {metric}, points"]  # fmt: skip
    note = (
        f"An expert's contribution to a token is the norm of gate times output. Rise and drop: the expert is removed, "
        f"and its tokens go to the next best expert; the probe was fitted on whole embeddings "
        f"({metric} {PERCENT * probe['whole'][0]:.1f}) and is not refitted, so a drop may also be a shift of the "
        f"embeddings that a refitted probe would follow. Brackets: 95 % interval over blocks of neighbouring patches."
    )
    return Table(f"experts_{one.run.name}", f"Experts of {one.title}", columns, rows, where, note)


def block_table(one: Studied, where: str) -> Table:
    found, updates = one.stages["routing"].result, one.stages["contributions"].result["updates"]
    rows: list[list[Cell]] = []
    for line, block in enumerate(found["blocks"]):
        control = found["label_control"][line]
        entropy = [Value(found[key][line], digits=3) for key in ("usage_entropy", "gates_entropy")]
        cover: list[Cell] = [None] * len(COVER_COLUMNS)
        if "cover" in found:
            cover = [Value(found["cover"][line], digits=3), *(_value(found[key][line], digits=3) for key in ABOVE)]
        null = Value(float(np.mean(control)), min(control), max(control), digits=4)
        rows.append([f"block {block}", *entropy, Value(PERCENT * updates[line], digits=2),
                     *cover, Value(found["label_nmi"][line], digits=4), null])  # fmt: skip
    columns = ["block", "entropy of usage", "entropy of gates", "contribution, % of token", *COVER_COLUMNS,
               "NMI with labels", "NMI with permuted labels"]  # fmt: skip
    note = (
        "Entropies as shares of their maximum. Contribution: norm of the experts' sum over the token's. NMI: "
        "normalised mutual information of a patch token's best expert with the land cover under it, and with each of "
        "its image's labels (mean). Brackets: 95 % interval; in the last column the range of the permutations."
    )
    return Table(f"blocks_{one.run.name}", f"Blocks of {one.title}", columns, rows, where, note)


def encoder_table(studied: Sequence[Studied], where: str) -> Table:
    rows: list[list[Cell]] = []
    for one in studied:
        found = one.stages["routing"].result
        shares = [share[0] for block in found["usage"] for share in block]
        cover: list[Cell] = [None] * (len(COVER_COLUMNS) + len(LEARNED_COLUMNS))
        if "cover" in found:
            learned = [Value.of(found, digits=3) for found in _learned(one)] or [None] * len(ABOVE)
            cover = [Value(found["mean_cover"], digits=3),
                     *(_value(found[f"mean_{name}"], digits=3) for name in ABOVE), *learned]  # fmt: skip
        rows.append([one.title, len(found["dead"]), Value(PERCENT * min(shares)), *cover,
                     Value(float(np.mean(found["label_nmi"])), digits=4),
                     Value(float(np.mean(found["label_control"])), digits=4)])  # fmt: skip
    columns = ["encoder", "dead experts", "smallest share, %", *COVER_COLUMNS, *LEARNED_COLUMNS, "NMI with labels",
               "NMI with permuted labels"]  # fmt: skip
    note = (
        "Means over the blocks. NMI: normalised mutual information of a patch token's best expert with the land cover "
        "under it. An untrained encoder's gates distinguish covers as well: only an excess over the untrained encoder "
        "of the same architecture has been learned. Brackets: 95 % interval."
    )
    return Table("expert_specialisation", "Specialisation of the experts", columns, rows, where, note)


def _learned(one: Studied) -> list[Interval]:
    """How much more of each of `ABOVE` an encoder has than its untrained twin, on the same resampled images.

    Empty of an untrained one, and where the land cover of tokens is not known.
    """
    if one.twin is None or "cover" not in one.stages["routing"].result:
        return []
    found = [[mean_above(each.stages["routing"].result, each.stages["routing"].folder, name) for name in ABOVE]
             for each in (one, one.twin)]  # fmt: skip
    return [mine.minus(theirs).interval() for mine, theirs in zip(*found, strict=True)]


def learned_claims(studied: Sequence[Studied], where: str) -> Table:
    """Whether experts have learned to follow land cover, for every pretrained encoder."""
    claims = []
    for one in studied:
        if one.twin is not None:
            values = [Value.of(found, digits=3) for found in _learned(one)] or [None] * len(ABOVE)
            compared = f"{one.title} minus {one.twin.title}"
            claims += [Claim(claim, compared, [value], 1) for claim, value in zip(LEARNED_CLAIMS, values, strict=True)]
    note = (
        "NMI of a patch token's best expert with the land cover under it, above that with covers permuted between "
        "areas or, within images, with the image's own cover map rotated or mirrored; mean over the blocks."
    )
    if any(value is None for claim in claims for value in claim.values):
        note += " Empty: the land cover under a token is not known for these patches."
    measure = "NMI with land cover above its null distribution"
    return claims_table("expert_claims", "Do experts specialise?", [measure], claims, where, note)


def expert_figures(one: Studied) -> list[Figure]:
    """The pictures of an encoder; of an untrained one, a reference, only one."""
    captions = CAPTIONS if one.twin else {"information": CAPTIONS["information"]}
    found = [
        (stage.folder / f"{name}.png", caption) for name, caption in captions.items() for stage in one.stages.values()
    ]
    return [Figure(path, f"{one.heading}: {caption}") for path, caption in found if path.is_file()]


def sentences(one: Studied, metric: str) -> list[str]:
    """The findings about an encoder in words."""
    found = one.stages["routing"].result
    dead = f"{len(found['dead'])} experts are dead" if found["dead"] else "no expert is dead"
    text = [f"{one.heading}: {dead} in {len(found['blocks'])} blocks on these images."]
    if one.twin is None:
        return text
    text.append(f"{one.heading}: {_follows_labels(found, one.twin.stages['routing'].result)}")
    if "cover" in found:
        text.append(f"{one.heading}: {specialises(found, _learned(one))}")
    rises = [Interval(*rise) for rise in one.stages["ablation"].result["rises"]]
    drops = [Interval(*drop) for drop in one.stages["probe"].result["drops"]]
    loss = one.stages["ablation"].result["loss"]
    text.append(
        f"{one.heading}: the masked loss ({loss:.2f}) rises significantly without {_significant(rises)} of "
        f"{len(rises)} experts, at most by {max(rise.value for rise in rises):.3f}; a probe's {metric} drops "
        f"significantly without {_significant(drops)}, at most by {PERCENT * max(drop.value for drop in drops):.2f} "
        f"points. Of {len(drops)} comparisons about {len(drops) * 0.025:.0f} would be significant by chance."
    )
    if alarms := collapse_alarms(one.run.folder):
        text.append(f"{one.heading}: expert collapse in training: {alarms}.")
    return text


def _follows_labels(found: dict[str, Any], untrained: dict[str, Any]) -> str:
    """Whether the experts of patch tokens share information with their image's labels, beyond permuted labels."""
    nmi, null = float(np.mean(found["label_nmi"])), np.mean(found["label_control"], axis=0)  # mean over blocks
    values = f"(NMI {nmi:.3f}; untrained encoder {np.mean(untrained['label_nmi']):.3f})"
    if nmi > null.max():
        return f"routing depends on the images' labels: NMI above all {len(null)} permutations {values}."
    return f"no evidence that routing depends on the images' labels: NMI within the null distribution {values}."


def specialises(found: dict[str, Any], learned: Sequence[Interval]) -> str:
    """NMI of experts and land cover, compared with the null distributions and with the untrained encoder.

    Args:
        found: by `view_routing`, with "cover".
        learned: for each of `ABOVE` the distance to the untrained encoder of the same architecture.
    """

    def relation(value: Interval, other: str) -> str:
        return f"{RELATIONS[side(value)]} {other} ({value.value:+.3f})"

    over, within = (Interval(*found[f"mean_{name}"]) for name in ABOVE)
    text = (
        f"the NMI of experts and land cover is {relation(over, 'that with permuted covers')} and "
        f"{relation(within, 'that with rotated covers')}"
    )
    if learned:
        text += (
            f"; the excess over permuted covers is {relation(learned[0], 'that of the untrained encoder')}, the excess "
            f"over rotated covers is {relation(learned[1], 'that of the untrained encoder')}"
        )
    return f"{text}."


def collapse_alarms(folder: Path) -> str:
    """The experts that had collapsed in the last epoch of a run's log, and how many ever had; "" for none."""
    logs = sorted(folder.glob("training_log_*.jsonl"))
    rows = [json.loads(line) for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
    ever = {(one["block"], one["expert"]) for row in rows for one in row.get("collapsed_experts", [])}
    if not ever:
        return ""
    last = [f"expert {one['expert']} of block {one['block']}" for one in rows[-1]["collapsed_experts"]]
    return f"{len(ever)} experts fell below 1 % of their block's choices in some epoch, " + (
        f"and at the end {', '.join(last)} still were" if last else "and none was at the end"
    )


def _significant(values: Sequence[Interval]) -> int:
    """How many are above 0 with their whole interval."""
    return sum(side(value) == MORE for value in values)


def _value(found: Sequence[float], scale: float = 1.0, digits: int = 1) -> Value:
    """An interval of a stage's result, as JSON holds it."""
    return Value.of(Interval(*found), scale, digits)
