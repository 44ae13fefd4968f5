"""One seed, split by role: every random number is a function of (seed, role, position), nothing else."""

import hashlib

import torch


def derive_seed(seed: int, role: str, *position: int | str) -> int:
    """A 63-bit seed for one purpose, independent of all others.

    Args:
        seed: the run's only seed.
        role: what the numbers are for ("order", "mask", "routing noise", …).
        position: where: epoch, step, or an item's name.
    """
    text = "/".join([str(int(seed)), role, *map(str, position)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, role: str, *position: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh `torch.Generator` for `derive_seed(seed, role, *position)`; nothing needs saving to resume."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, role, *position))
