"""A very small training step with targets beside the pixels."""

from collections.abc import Mapping

import torch
from tiny_step import CONFIG, SIZE, a_batch

from models import build_model
from models.losses import LossWeights
from models.target import Examples, TargetOptions
from models.targets import Targets
from training.step import StepOptions, TrainStep
from utils.compilation import EAGER, Compilation

ALL = {
    "metadata": 10.0,
    "patch_features": 5.0,
    "normalised_pixels": 4.0,
    "image": 2.0,
    "image_prefix": 2.0,
    "readout": 3.0,
}


def fitted(weights_of: Mapping[str, float] = ALL, options: TargetOptions = TargetOptions()) -> Targets:  # noqa: B008
    targets = Targets(CONFIG, weights_of, 3, options)
    batch = a_batch(7)
    targets.fit(Examples(batch.images, batch.valid, batch.meta), seed=3)
    return targets


def plus_step(
    targets: Targets | None = None, masking: float = 0.5, compilation: Compilation = EAGER, **changes: object
) -> TrainStep:
    model = build_model(CONFIG, seed=0).train()
    targets = fitted() if targets is None else targets
    trained = torch.nn.ModuleList([model, targets]).parameters()
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.05, fused=True)
    options = StepOptions(0, LossWeights(0.1, 50.0), 1.0, 0.0, None, SIZE, (masking,) * 4, ())._replace(**changes)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return TrainStep(model, optimizer, options, scaler, compilation=compilation, targets=targets)
