"""This project's side of the timings: training steps and embedding as the scripts run them."""

import numpy as np
import torch
from torch import Tensor

from benchmarks.reference_work import GRAD_CLIP, LEARNING_RATE, SCHEDULE, WEIGHT_DECAY
from datasets.patches import Batch
from models.config import ModelConfig
from models.inference.embedder import Embedder
from models.losses import LossWeights
from models.moe_mae import MOEMAE, build_model
from training.optimizer import adamw
from training.pretrain import LOOK_EVERY
from training.step import StepOptions, TrainStep
from utils.compilation import Compilation
from utils.devices import mixed_precision


class OurTraining:
    """A model in training on one batch, a step a call.

    Args:
        config: the model's numbers.
        batch: the patches, on the device.
        compiled: whether forward and backward are compiled.
        seed: of the weights and of everything random.
        amp: `training.amp`.

    Attributes:
        said: messages about compiling and capturing; see `not_compiled`.
    """

    def __init__(self, config: ModelConfig, batch: Batch, compiled: bool, seed: int, amp: bool | str = "auto") -> None:
        device = batch.images.device
        self.batch, self.steps, self.said = batch, 0, []
        model = build_model(config, seed=seed).to(device).train()
        optimizer = adamw(model, device, LEARNING_RATE, WEIGHT_DECAY)
        options = StepOptions(
            seed=seed,
            weights=LossWeights(),
            grad_clip=GRAD_CLIP,
            metadata_dropout=0.0,
            autocast=mixed_precision(device, amp),
            batch_size=len(batch.images),
        )
        scaler = torch.amp.GradScaler(device.type, enabled=options.autocast is torch.float16)
        self.train = TrainStep(model, optimizer, options, scaler, compilation=Compilation(compiled, self.said.append))

    def __call__(self) -> None:
        self.on(self.batch)

    def on(self, batch: Batch) -> None:
        """A step on another batch of the same shape, synchronised with the host as often as in pretraining."""
        self.train(batch, self.steps, SCHEDULE(self.steps))
        if batch.images.device.type == "cpu" or self.steps % LOOK_EVERY == 0:
            self.train.require_finite()
        self.steps += 1


class OurEmbedding:
    """Embedding one batch, from tensors to a NumPy array.

    Args:
        model: in evaluation mode, on the device.
        images, meta: (B, C, H, W) and (B, 4, 2), on the CPU or on the device already.
        compiled: whether the encoder is compiled.
        autocast: type of mixed precision; None computes in float32.
        backend: a key of `models.inference.runtimes.RUNTIMES`.
        pool: see `models.inference.embedder.pool_tokens`; "all" is what the published code keeps.

    Attributes:
        said: as in `OurTraining`.
    """

    def __init__(
        self,
        model: MOEMAE,
        images: Tensor,
        meta: Tensor,
        *,
        compiled: bool,
        autocast: torch.dtype | None,
        backend: str = "torch",
        pool: str = "all",
    ) -> None:
        self.device = next(model.parameters()).device
        self.images, self.meta, self.said = images, meta, []
        compilation = Compilation(compiled, self.said.append)
        self._embed = Embedder(
            model, pool, autocast=autocast, compilation=compilation, batch_size=len(images), backend=backend
        )

    def __call__(self) -> np.ndarray:
        return self._embed(self.images.to(self.device), self.meta.to(self.device)).cpu().numpy()


def forget_compiled() -> None:
    """Before new things are compiled: beyond a few versions of one function torch goes on without compiling it.

    What was compiled before is compiled anew should it be called again.
    """
    torch.compiler.reset()


def not_compiled(work: object) -> str:
    """The message why compilation failed; empty if it did not, or was not asked for."""
    return next((line for line in getattr(work, "said", []) if line.startswith("compile")), "")
