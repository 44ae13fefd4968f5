"""AdamW as the paper uses it, in its fused form."""

from typing import Any

import torch
from torch import nn


def adamw(model: nn.Module, device: torch.device, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """The optimizer of a run; on CUDA its rate and step number are tensors there, so that a step can be captured."""
    on_cuda = device.type == "cuda"
    return torch.optim.AdamW(
        model.parameters(),
        lr=torch.tensor(lr, device=device) if on_cuda else lr,
        weight_decay=weight_decay,
        fused=True,
        capturable=on_cuda,
    )


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take up a saved state, also one from another kind of device."""
    kept = [{key: group[key] for key in ("lr", "fused", "capturable")} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, values in zip(optimizer.param_groups, kept, strict=True):
        group.update(values)
        if group["capturable"]:
            for parameter in group["params"]:
                optimizer.state[parameter]["step"] = optimizer.state[parameter]["step"].to(parameter.device)
