"""A very small training step and batches for it, full and padded."""

import torch
from tiny import TINY_MODEL

from datasets.patches import Batch
from models import MOEMAE, ModelConfig, build_model
from models.losses import LossWeights
from training.step import StepOptions, StepResult, TrainStep
from utils.compilation import EAGER, Compilation
from utils.randomness import generator

CPU = torch.device("cpu")
NUMBERS = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
CONFIG = ModelConfig.of_size("XXS", **{**NUMBERS, "img_size": 16, "dfirsth": 13, "dlasth": 9, "decoder_depth": 1})
ROWS, SIZE = 3, 5
"""Patches of a batch that is not full, and of a full one."""


def a_batch(number: int = 0, rows: int = SIZE, side: int = 16) -> Batch:
    rng = generator(number, "a batch")
    valid = torch.rand(SIZE, side, side, generator=rng) > 0.2
    images = torch.randn(SIZE, 7, side, side, generator=rng) * valid.unsqueeze(1)
    meta = torch.randn(SIZE, 4, 2, generator=rng)
    return Batch(images[:rows], meta[:rows], valid[:rows], None, list("abcde")[:rows])


def padded(batch: Batch, size: int = SIZE) -> Batch:
    """Filled up as the loader does: with a patch that is declared invalid."""
    more = size - len(batch.images)
    images, meta = (torch.cat([value, value[:1].expand(more, *value.shape[1:])]) for value in batch[:2])
    valid = torch.cat([batch.valid, torch.zeros(more, *batch.valid.shape[1:], dtype=torch.bool)])
    return Batch(images, meta, valid, None, batch.ids)


def a_step(compilation: Compilation = EAGER, config: ModelConfig = CONFIG, model: MOEMAE | None = None) -> TrainStep:
    model = (model or build_model(config, seed=0)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)
    options = StepOptions(0, LossWeights(0.1, 50.0), 1.0, 0.2, None, SIZE)
    return TrainStep(model, optimizer, options, torch.amp.GradScaler("cpu", enabled=False), compilation=compilation)


def numbers(result: StepResult) -> list[float]:
    return [*(value.item() for value in result.losses), result.grad_norm.item(), result.counted.item()]
