"""Whether the reference is a fair baseline: it must cost what the published code was measured to cost."""

from typing import Any, NamedTuple

SLACK = 0.15


class Published(NamedTuple):
    """What the published code was measured to cost, on two cores in float32."""

    seconds: tuple[float, float]
    """Least and most."""
    rate: tuple[float, float] = (217e9, 240e9)
    """Least and most of that machine's matrix products, operations/s."""

    @property
    def operations(self) -> tuple[float, float]:
        """The cost independent of the machine: the operations of matrix products that take as long."""
        return self.seconds[0] * self.rate[0], self.seconds[1] * self.rate[1]


PUBLISHED = {
    "train": Published((2.06, 2.06)),  # a step of size S at batch 128
    "embed": Published((0.73, 0.90)),  # 64 patches, all 105 tokens
}


class Verdict(NamedTuple):
    """Whether ratios to the reference are valid."""

    valid: bool
    cost: float
    """Seconds of the reference."""
    expected: tuple[float, float]
    """Seconds that the published code would take at this machine's rates, without the slack."""
    rates: tuple[float, float]
    """Operations/s of float32 matrix products measured beside it: by the fastest library, and by `nn.Linear`."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the JSON."""
        return {**self._asdict(), "slack": SLACK}

    @property
    def sentence(self) -> str:
        low, high = self.expected
        fastest, linear = (f"{rate / 1e9:.0f}" for rate in self.rates)
        rates = fastest if fastest == linear else f"{fastest} (with `nn.Linear` {linear})"
        kept = "as the published code" if self.valid else f"outside {SLACK:.0%} of the published code: RATIOS VOID"
        return (
            f"the reference takes {self.cost:.2f} s; the published code, scaled to the {rates} GFLOP/s "
            f"of float32 matrix products in this run, {low:.2f} to {high:.2f} s; {kept}"
        )


def judge(work: str, seconds: float, fastest: float, linear: float | None = None) -> Verdict:
    """Compare what the reference costs here with what the published code cost, scaled by the matrix rate.

    The rate stands for the speed of a machine. On the one of the published figures the library behind PyTorch's
    `nn.Linear` is the fastest there is; on others it reaches half of what the processor can do. Then the published
    code, whose products are `nn.Linear`'s and whose other operations are not, would cost something between what the
    two rates say, and the reference must too.

    Args:
        work: "train" or "embed".
        seconds: of the reference in this run.
        fastest: of float32 matrix products by the fastest library, taken in turns with it, operations/s.
        linear: the same by `nn.Linear`, at most as much; None means the same.
    """
    linear = fastest if linear is None else linear
    least, most = PUBLISHED[work].operations
    # The fastest rate bounds the cost from below, nn.Linear's rate from above: see the docstring.
    low, high = least / fastest, most / linear
    valid = low * (1 - SLACK) <= seconds <= high * (1 + SLACK)
    return Verdict(valid, seconds, (low, high), (fastest, linear))
