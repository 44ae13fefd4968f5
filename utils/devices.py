"""Which device a run uses."""

import torch

from utils.errors import ConfigError


def select_device(name: str) -> torch.device:
    """The device a config asks for: "auto", "cpu", "cuda", "cuda:1", "mps".

    An accelerator that this machine lacks falls back to the CPU, with one line saying so.

    Raises:
        ConfigError: for a name that is no device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"model.device: {name!r} is no device; use auto, cpu, cuda, cuda:N or mps") from error
    present = {
        "cpu": lambda: True,
        "cuda": lambda: torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available,
    }
    if device.type not in present:
        raise ConfigError(f"model.device: {name!r} is not supported; use auto, cpu, cuda, cuda:N or mps")
    if not present[device.type]():
        print(f"device {name} is not available on this machine; using the CPU")
        return torch.device("cpu")
    return device


def mixed_precision(device: torch.device, amp: bool | str) -> torch.dtype | None:
    """The autocast type for training: bfloat16 or float16 on CUDA, None (float32) elsewhere.

    Args:
        device: where the model runs.
        amp: False or True/"auto" (bfloat16 where the GPU has it, else float16), "bf16", "fp16".
    """
    if amp is False or device.type != "cuda":
        return None
    if amp in ("bf16", "fp16"):
        return {"bf16": torch.bfloat16, "fp16": torch.float16}[amp]
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
