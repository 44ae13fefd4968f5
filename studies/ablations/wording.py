"""Findings of the studies in words, derived from their numbers."""

from collections.abc import Sequence
from typing import NamedTuple

from studies.ablations.variants import figure_of, masked_losses, minus, recipe_variant, run_of
from studies.comparison.claims import CHANCE
from studies.comparison.main_table import POOL_TITLES
from studies.engine.context import StudyContext
from studies.engine.masked_losses import MODEL
from studies.report_parts.sections import Value
from studies.report_parts.verdicts import ABOVE, BELOW, OPEN, side

POINTS = "points"


class PairedDifference(NamedTuple):
    """The difference of two rows in a metric, paired by resampled patches and pretraining seed."""

    first: str
    second: str
    value: Value | None
    """`first` minus `second`."""
    metric: str
    """What was measured: "micro mAP"."""
    unit: str = POINTS
    runs: int | None = None
    """Pretraining runs that the difference rests on."""

    def words(self) -> str:
        """The two, and their difference with its interval."""
        pair = f"{self.first} vs. {self.second}"
        if self.value is None or self.value.bounds is None:
            return pair
        value, low, high = (_signed(number, self.value.digits) for number in (self.value.value, *self.value.bounds))
        return f"{pair} ({' '.join(filter(None, (value, self.unit)))}, 95 % CI {low} to {high})"


SENTENCES = {
    ABOVE: "Significantly higher {metric} (95 % CI of the difference above 0)",
    BELOW: "Significantly lower {metric} (95 % CI of the difference below 0)",
    OPEN: "No significant difference in {metric} (95 % CI includes 0)",
    None: "No confidence interval for a difference in {metric}",
}
"""Side of a difference (`report_parts.verdicts.side`) to the beginning of a sentence."""


def summary(differences: Sequence[PairedDifference]) -> list[str]:
    """What the data support about pairs of rows, and what not: a sentence for each kind of finding."""
    sentences = []
    for metric in dict.fromkeys(one.metric for one in differences):
        for where, beginning in SENTENCES.items():
            found = [one.words() for one in differences if one.metric == metric and side(one.value) == where]
            if found:
                sentences.append(f"{beginning.format(metric=metric)}: {'; '.join(found)}.")
    return sentences


def recipe_words(context: StudyContext) -> list[str]:
    """How the encoders of the studies were pretrained, and whether they reconstruct better than a mean."""
    variant, seeds = recipe_variant(), context.config.study.seeds
    facts, source = run_of(context, variant, seeds[0]).facts, context.data.study
    many = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]} only"
    text = [
        f"Encoders of this study: {facts['parameters']:,} parameters, {facts['steps']:,} steps ({facts['epochs']} "
        f"epochs) on {facts['patches']:,} {source.patches()}, {many}, unless stated otherwise. Evaluated by a linear "
        f"probe on {POOL_TITLES[context.config.study.pool]} (standardised features, C chosen on validation data, "
        "fitted to convergence)."
    ]
    if len(seeds) == 1:
        text.append("One pretraining seed: the intervals do not cover the variation between seeds.")
    losses = masked_losses(context, variant)
    gap = figure_of(minus([run[MODEL] for run in losses], [run["visible_mean"] for run in losses]))
    if side(gap) != BELOW:
        compared = "worse than" if side(gap) == ABOVE else "not significantly better than"
        loss, mean = figure_of([run[MODEL] for run in losses]), losses[0]["visible_mean"]
        text.append(
            f"These encoders reconstruct masked patches {compared} each image's visible mean (masked loss "
            f"{loss.value:.1f}, baseline {mean.value:.1f}): they are early in their training, and so are the findings "
            "about them."
        )
    return text


def by_chance(comparisons: int) -> str:
    """How many significant differences chance alone gives, for a table's note."""
    return (
        f"Where there is no difference, about one in twenty 95 % intervals excludes 0 by chance: of {comparisons} "
        f"here {CHANCE * comparisons:.2g}."
    )


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "\u2212")
