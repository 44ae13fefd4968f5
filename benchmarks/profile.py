"""Where the time of one call goes: operations or kernels by torch's profiler, in a few groups."""

import re
import time
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import Work
from utils.markdown import markdown_table

GROUPS: tuple[tuple[str, str], ...] = (
    ("optimizer", r"adam|multi_tensor|foreach"),
    ("attention", r"scaled_dot|flash|fmha|efficient_att|softmax|::bmm|baddbmm"),
    ("matrix products", r"::mm|addmm|::linear|_linear|gemm|cutlass|cublas|xmma|nvjet|splitk|convolution|mkldnn"),
    ("normalisation", r"layer_?norm"),
    ("random numbers", r"bernoulli|normal|uniform|rand|distribution"),
    ("fused by the compiler", r"triton|cpp_fused|graph_\d|compiledf|torch-compiled|inductor"),
    ("copies, gathers and scatters",
     r"copy|clone|::cat|catarray|memcpy|memset|fill|zero_|index|gather|scatter|nonzero|select_backward|slice_backward"),
    ("routing", r"topk|sort|cumsum|one_hot|erf|ndtr|softplus"),
    ("elementwise and sums", r"aten::|elementwise|reduce"),
)  # fmt: skip
"""Group and what its operations or kernels are called; the first that fits counts."""

OTHER = "other"
OUTSIDE = "between operations"


class Part(NamedTuple):
    """One group of a profile."""

    group: str
    seconds: float
    calls: int


def profile_call(work: Work, device: torch.device, repeats: int = 3) -> list[Part]:
    """Seconds per call by group, most first; `OUTSIDE` is what remains of the time that an unprofiled call takes.

    On CUDA kernels are counted, elsewhere operations, each without those that it calls. The profiler slows small
    operations down, so the parts can add up to more than the call; they are then scaled to it.

    Args:
        work: the call; it is made once beforehand.
        device: where it computes.
        repeats: calls that are profiled, and that are timed without the profiler.
    """
    work()
    whole = _seconds(work, device, repeats)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiler:
        for _ in range(repeats):
            work()
        _synchronise(device)
    sums: dict[str, list[float]] = {}
    for event in profiler.key_averages():
        if device.type == "cuda" and event.device_type.name != "CUDA":
            continue
        micros = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        entry = sums.setdefault(group_of(event.key), [0.0, 0])
        entry[0] += micros / 1e6 / repeats
        entry[1] += event.count
    inside = sum(seconds for seconds, _ in sums.values())
    scale = min(1.0, whole / inside) if inside else 1.0
    parts = [Part(group, scale * seconds, round(calls / repeats)) for group, (seconds, calls) in sums.items()]
    return [*sorted(parts, key=lambda part: -part.seconds), Part(OUTSIDE, max(0.0, whole - inside), 0)]


def group_of(name: str) -> str:
    """The group of an operation or kernel."""
    return next((group for group, pattern in GROUPS if re.search(pattern, name, re.IGNORECASE)), OTHER)


def profile_table(profiles: dict[str, list[Part]]) -> str:
    """Markdown, one row a group, one column a profile: milliseconds, share and calls."""
    groups = list(dict.fromkeys(part.group for parts in profiles.values() for part in parts))
    rows: list[list[str]] = []
    for group in groups:
        cells = []
        for parts in profiles.values():
            whole = sum(part.seconds for part in parts)
            found = next((part for part in parts if part.group == group), None)
            cells.append("–" if found is None else _cell(found, whole))
        rows.append([group, *cells])
    totals = (f"{1e3 * sum(part.seconds for part in parts):,.1f} ms" for parts in profiles.values())
    return markdown_table(["part", *profiles], [*rows, ["**all**", *totals]])


def _cell(part: Part, whole: float) -> str:
    share = part.seconds / whole if whole else 0.0
    calls = f", {part.calls:,} calls" if part.calls else ""
    return f"{1e3 * part.seconds:,.1f} ms ({share:.0%}{calls})"


def _seconds(work: Work, device: torch.device, repeats: int) -> float:
    _synchronise(device)
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    _synchronise(device)
    return (time.perf_counter() - started) / repeats


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
