"""The optimizers of a run: AdamW as the paper uses it, in its fused form, and Muon beside it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from configs.schema import TrainingSection
from models.moe_mae import MOEMAE
from training.muon import MuonWithAdamW, block_matrices
from training.unreached_experts import AdamWByExpert, stacks_of


def adamw(model: MOEMAE, device: torch.device, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW; on CUDA its rate and step number are tensors there, so that a step can be captured.

    With the published behaviour, experts that no token reached are left alone (`training.unreached_experts`).
    """
    return _adamw(model, model.parameters(), device, lr, weight_decay)


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
        return _adamw(model, trained.parameters(), device, lr, decay)
    matrices, muon_lr = block_matrices(model), training.muon_learning_rate or lr
    taken = {id(matrix.parameter) for matrix in matrices}
    others = _adamw(model, (p for p in trained.parameters() if id(p) not in taken), device, lr, decay)
    stacks = stacks_of(model) if model.config.published_behaviour else []
    return MuonWithAdamW(matrices, others, _rate(muon_lr, device), decay, muon_lr / lr, stacks)


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
    model: MOEMAE, parameters: Iterable[nn.Parameter], device: torch.device, lr: float, weight_decay: float
) -> torch.optim.AdamW:
    settings: dict[str, Any] = {
        "lr": _rate(lr, device),
        "weight_decay": weight_decay,
        "fused": True,
        "capturable": device.type == "cuda",
    }
    if not model.config.published_behaviour:
        return torch.optim.AdamW(parameters, **settings)
    parameters = list(parameters)
    return AdamWByExpert(parameters, stacks_of(model, {id(p) for p in parameters}), **settings)


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
                if found := optimizer.state.get(parameter):  # none where no step has reached it yet
                    found["step"] = found["step"].to(parameter.device)
