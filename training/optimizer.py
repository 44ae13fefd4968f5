"""The optimizers of a run: AdamW as the paper uses it, in its fused form, and Muon beside it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from configs.schema import TrainingSection
from models.moe_mae import MOEMAE
from training.muon import MuonWithAdamW, block_matrices


def adamw(model: nn.Module, device: torch.device, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW; on CUDA its rate and step number are tensors there, so that a step can be captured."""
    return _adamw(model.parameters(), device, lr, weight_decay)


def optimizer_of(training: TrainingSection, model: MOEMAE, trained: nn.Module, device: torch.device) -> Optimizer:
    """The optimizer that a run asks for.

    Args:
        training: names it, its rates and its weight decay.
        model: whose blocks have the matrices that Muon takes.
        trained: everything that has weights to train, the model among it.
        device: where they are.
    """
    lr, decay = training.learning_rate, training.weight_decay
    if training.optimizer == "adamw":
        return adamw(trained, device, lr, decay)
    matrices, muon_lr = block_matrices(model), training.muon_learning_rate or lr
    taken = {id(matrix.parameter) for matrix in matrices}
    others = _adamw((p for p in trained.parameters() if id(p) not in taken), device, lr, decay)
    return MuonWithAdamW(matrices, others, _rate(muon_lr, device), decay, muon_lr / lr)


def set_rate(optimizer: Optimizer, lr: float) -> None:
    """Give every group the rate of a step, times its own factor where it has one."""
    for group in optimizer.param_groups:
        rate = lr * group.get("lr_factor", 1.0)
        # A captured graph reads the rate from the tensor it was captured with.
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _adamw(
    parameters: Iterable[nn.Parameter], device: torch.device, lr: float, weight_decay: float
) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        parameters,
        lr=_rate(lr, device),
        weight_decay=weight_decay,
        fused=True,
        capturable=device.type == "cuda",
    )


def _rate(lr: float, device: torch.device) -> float | Tensor:
    return torch.tensor(lr, device=device) if device.type == "cuda" else lr


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take up a saved state, also one from another kind of device."""
    kept = [
        {key: group[key] for key in ("lr", "fused", "capturable") if key in group} for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    for group, values in zip(optimizer.param_groups, kept, strict=True):
        group.update(values)
        if group.get("capturable"):
            for parameter in group["params"]:
                optimizer.state[parameter]["step"] = optimizer.state[parameter]["step"].to(parameter.device)
