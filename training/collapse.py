"""Expert collapse: checked per epoch, warns once per collapse."""

from collections.abc import Sequence
from typing import NamedTuple

COLLAPSED_SHARE = 0.01
"""An expert with a smaller share of its block's choices over a whole epoch has collapsed."""


class Collapsed(NamedTuple):
    """An expert that got next to nothing in an epoch."""

    block: int
    """Index in the encoder."""
    expert: int
    share: float
    """Of its block's choices in that epoch."""


def collapsed_experts(usage: Sequence[Sequence[float] | None], least: float = COLLAPSED_SHARE) -> list[Collapsed]:
    """The experts whose share of an epoch's choices is below `least`.

    Args:
        usage: of every block of the encoder, each expert's share of the block's choices in the epoch
            (`EpochSums.averages`, "expert_usage"); None for a block without experts to choose from.
        least: the smallest share of an expert in use.
    """
    return [
        Collapsed(block, expert, share)
        for block, shares in enumerate(usage)
        for expert, share in enumerate(shares or ())
        if share < least
    ]


class CollapseAlarm:
    """Remembers which experts had collapsed in the epoch before, so that each collapse is warned about once.

    An expert that recovers and collapses again is warned about again. `state` and `restore` carry the memory over a
    resume.
    """

    def __init__(self) -> None:
        self._down: set[tuple[int, int]] = set()

    def new(self, collapsed: Sequence[Collapsed]) -> list[Collapsed]:
        """Those of an epoch's collapsed experts that had not collapsed in the epoch before."""
        before, self._down = self._down, {(one.block, one.expert) for one in collapsed}
        return [one for one in collapsed if (one.block, one.expert) not in before]

    def state(self) -> list[list[int]]:
        """(block, expert) pairs, as plain values."""
        return sorted(list(pair) for pair in self._down)

    def restore(self, state: Sequence[Sequence[int]]) -> None:
        """The inverse of `state`."""
        self._down = {(block, expert) for block, expert in state}


def warning(one: Collapsed, epoch: int) -> str:
    """The warning about a collapse: which expert, its share, and what helps. Epochs count from 1."""
    return (
        f"warning: expert {one.expert} of block {one.block} got {one.share:.2%} of the block's choices in epoch "
        f"{epoch}, less than {COLLAPSED_SHARE:.0%}: it has collapsed. Raise training.balance_weight or take fewer "
        "model.experts if it stays so"
    )
