"""Where a result comes from: versions, device, revision, command."""

import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from utils.project_files import PROJECT

_PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "rasterio", "pydantic")


def provenance(device: torch.device | None = None) -> dict[str, Any]:
    """Plain values for a manifest: package versions, device, threads, git revision where there is one, command."""
    return {
        "command": f"{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}".strip(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "device": device_name(device) if device is not None else None,
        "threads": torch.get_num_threads(),
        "git_revision": git_revision(),
    }


def device_name(device: torch.device) -> str:
    """The device with its model name where there is one."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def git_revision() -> str | None:
    """The commit of this source tree, with `-dirty` where it has uncommitted changes; None outside a checkout."""
    if not (PROJECT / ".git").exists():  # an installed package may lie inside somebody else's checkout
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def processor_name() -> str:
    """The processor's model name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
