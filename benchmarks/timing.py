"""Alternating timing: what is compared runs in turns, so that load on the machine affects all of it alike."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

Work = Callable[[], object]

ROUND_SECONDS = 0.2
"""A turn of something shorter repeats it until about so long, so that the overhead of clock and queue is negligible."""

MOST_REPEATS = 1000


class Timing(NamedTuple):
    """Seconds per call, one number for each round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile."""
        return quartiles(self.rounds)


class Ratio(NamedTuple):
    """How many times faster one thing is than another."""

    value: float
    """The quotient of the two medians."""
    low: float
    high: float
    """First and third quartile of the quotients of each round."""


WARM_UP = {"cpu": 2, "cuda": 8}
"""Calls of everything before the first round: they compile, allocate, fill caches, and on CUDA capture a graph."""


def alternate(works: Mapping[str, Work], rounds: int, device: torch.device) -> dict[str, Timing]:
    """Time some works in turns: A B C, C B A, A B C, …

    Args:
        works: by name; each is called without arguments.
        rounds: turns of each.
        device: on CUDA the time between two events on the stream is taken, so that a call that only queues work
            is charged for the work.

    Raises:
        ValueError: without works or rounds.
    """
    if rounds < 1 or not works:
        raise ValueError(f"{rounds} rounds of {len(works)} works: nothing to time")
    repeats = {}
    for name, work in works.items():
        for _ in range(WARM_UP[device.type]):
            seconds = timed(work, 1, device)
        # The last warm-up call is free of compilation and allocation, so it tells how often a turn has to repeat it.
        repeats[name] = min(MOST_REPEATS, max(1, math.ceil(ROUND_SECONDS / max(seconds, 1e-9))))
    measured: dict[str, list[float]] = {name: [] for name in works}
    order = list(works)
    # Every other round runs backwards: a drift of the clock rate then favours no place in the order.
    for turn in tqdm(range(rounds), desc=" | ".join(order), leave=False, disable=None):
        for name in order if turn % 2 == 0 else reversed(order):
            measured[name].append(timed(works[name], repeats[name], device))
    return {name: Timing(tuple(values)) for name, values in measured.items()}


def timed(work: Work, repeats: int, device: torch.device) -> float:
    """Seconds per call of `repeats` calls in a row, everything they queued on the device included."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        return (time.perf_counter() - started) / repeats
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    begin.record(torch.cuda.current_stream(device))
    for _ in range(repeats):
        work()
    end.record(torch.cuda.current_stream(device))
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1e3 / repeats


def faster(ours: Timing, reference: Timing) -> Ratio:
    """How many times faster `ours` is; both from one `alternate`."""
    pairs = [theirs / mine for mine, theirs in zip(ours.rounds, reference.rounds, strict=True)]
    return Ratio(reference.median / ours.median, *quartiles(pairs))


def quartiles(values: tuple[float, ...] | list[float]) -> tuple[float, float]:
    """First and third quartile, interpolated; of one value, that value twice."""
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


class Waiting:
    """Share of the time in which something on this machine waited for a processor, between start and `share`.

    Linux counts it for all processes together (`/proc/pressure/cpu`); elsewhere it is unknown. A quiet machine has
    nearly none; with a lot of it, timings with several threads mean little.
    """

    _FILE = Path("/proc/pressure/cpu")

    def __init__(self) -> None:
        self._started, self._waited = time.perf_counter(), self._total()

    def share(self) -> float | None:
        """0 to 1, or None where the system does not count it."""
        now, then = self._total(), self._waited
        if now is None or then is None:
            return None
        return (now - then) / max(time.perf_counter() - self._started, 1e-9)

    def _total(self) -> float | None:
        try:
            line = self._FILE.read_text().splitlines()[0]  # some avg10=… avg60=… avg300=… total=<microseconds>
            return int(line.rpartition("total=")[2]) / 1e6
        except (OSError, ValueError, IndexError):
            return None
