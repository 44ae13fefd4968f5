"""Performance goals, by work and kind of device."""

from benchmarks.report import Goal

GOALS: dict[tuple[str, str], Goal] = {
    ("train eager", "cpu"): Goal("≥ 2×", ratio=2.0),
    ("train compiled", "cpu"): Goal("≥ 2.5×", ratio=2.5),
    ("train compiled, bfloat16", "cpu"): Goal("≥ 2.5×", ratio=2.5),
    ("train throughput", "cpu"): Goal("200 patches/s (stretch)", least=200.0),
    ("train compiled", "cuda"): Goal("≤ 2.5 ms and ≥ 20×", ratio=20.0, most=2.5),
    ("train throughput", "cuda"): Goal("≥ 110,000 patches/s (stretch 300,000)", least=110_000.0),
    ("embed", "cpu"): Goal("≥ 3×", ratio=3.0),
    ("embed", "cuda"): Goal("≥ 110,000 patches/s", least=110_000.0),
    ("load pack", "cpu"): Goal("≥ 50,000 patches/s a core", least=50_000.0),
    ("load resident", "cuda"): Goal("no time that the step can see (2 %)", ratio=0.98),
    ("pack", "cpu"): Goal("≥ 1,000 files/s on two cores", least=1000.0),
    ("probe", "cpu"): Goal("≥ 8× and converged", ratio=8.0),
    ("probe of few rows", "cpu"): Goal("≤ 3 s", most=3.0),
    ("large probe", "cpu"): Goal("fits in 24 GB or says what it needs"),
    ("large probe", "cuda"): Goal("≤ 5 min", most=300.0),
    ("paper", "cuda"): Goal("≤ 45 min (stretch 20)", most=2700.0),
}
"""Goals on each kind of device; work that is not listed has none there."""


def goal(work: str, kind: str, quick: bool = False) -> Goal | None:
    """The goal of some work on "cpu" or "cuda"; a quick run has none."""
    return None if quick else GOALS.get((work, kind))
