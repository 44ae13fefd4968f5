"""What this processor does fast, measured once a machine and kept in the user's cache folder.

Fractions of a second, and only where something that asks for it has been chosen. The file may be missing, damaged or
not writable: then it is measured again.
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from utils.files import write_json
from utils.provenance import processor_name

ROWS, WIDTH = 1024, 256
"""Of the product that is timed: 0.13 GFLOP, as large as those inside size S at a batch of 32."""

TRIES = 5


def bfloat16_is_fast() -> bool:
    """Whether this processor multiplies in bfloat16 faster than in float32, with as many threads as PyTorch has now.

    One that lacks the instructions emulates them: embedding then takes about ten times as long as in float32.
    """
    return _has_bfloat16() and _kept(f"bfloat16 at {torch.get_num_threads()} threads", _times_faster_in_bfloat16) > 1


def _has_bfloat16() -> bool:
    """Whether the processor may have the instructions: False where PyTorch knows that it has none."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    names = ("avx512_bf16", "amx_bf16")
    return not all(name in capabilities for name in names) or any(capabilities[name] for name in names)


def _times_faster_in_bfloat16() -> float:
    single, half = (_seconds(precision) for precision in (torch.float32, torch.bfloat16))
    return single / half


def _seconds(precision: torch.dtype) -> float:
    """Of the product in one precision: the least of some tries, since other work only ever makes it slower."""
    x, weight = (torch.ones(rows, WIDTH, dtype=precision) for rows in (ROWS, WIDTH))
    taken = []
    for _ in range(TRIES):
        started = time.perf_counter()
        F.linear(x, weight)
        taken.append(time.perf_counter() - started)
    return min(taken)


@cache
def _kept(name: str, measure: Callable[[], float]) -> float:
    """A number of this machine: from the cache file where that holds it, else measured and written there."""
    values = _read()
    value = values.get(name)
    if isinstance(value, int | float) and value > 0:
        return float(value)
    value = measure()
    with suppress(Exception):  # a cache that cannot be written is none
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**values, name: value})
    return value


def _read() -> dict[str, Any]:
    try:
        values = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def cache_file() -> Path:
    """Where the numbers of this processor and this PyTorch are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    about = f"{processor_name()}-{torch.__version__}"
    return Path(root) / "moemae" / f"calibration-{''.join(c if c.isalnum() else '_' for c in about)}.json"
