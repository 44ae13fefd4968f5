"""The balance loss over all tokens, from the routing of one layer or of an encoder."""

import torch

from models.encoder import Encoded
from models.moe import Routing, balance_of, expert_importance, expert_load


def balance_loss(routing: Routing, published_load: bool = False) -> torch.Tensor:
    return balance_of(expert_importance(routing), expert_load(routing, published_load))


def total_balance(encoded: Encoded, published_load: bool) -> torch.Tensor:
    losses = [balance_loss(routing, published_load) for routing in encoded.routing if routing is not None]
    return torch.stack(losses).sum()
