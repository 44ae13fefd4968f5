"""One optimizer step: a pure function of the weights, the batch, the seed and the step's number.

Nothing in a step waits for the device: measurements stay there, a step that is not finite changes no weight and is
noted there, and the loop looks when it wants to (`TrainStep.require_finite`).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from datasets.loader import Part
from datasets.patches import Batch
from models.losses import Losses, LossWeights, losses_of
from models.masking import visible_patches, visible_unless_all
from models.moe_mae import MOEMAE
from models.noise import LayerNoise, NoiseBuffers, PassNoise
from models.targets import Targets
from training.averaging import WeightAverage
from training.capture import CapturedStep
from training.nan_guard import NanGuard, diverged
from training.objective import Objective
from training.optimizer import set_rate
from transformation.augmentations import AUGMENTATIONS, Augmented
from utils.compilation import EAGER, Compilation
from utils.processes import ALONE, Processes
from utils.randomness import generator

SMALLEST_SCALE = 1e-4
"""A loss scale that has sunk below this no longer explains a gradient that is not finite."""


class StepOptions(NamedTuple):
    """What stays the same from step to step."""

    seed: int
    weights: LossWeights
    grad_clip: float
    """Greatest gradient norm."""
    metadata_dropout: float
    """Chance that a patch's metadata are replaced by the missing pair (0, 0), so that the model has seen it."""
    autocast: torch.dtype | None
    """Type of mixed precision; None computes in float32."""
    batch_size: int
    """Patches of a full batch of all processes: routing noise and masks are sampled for so many."""
    metadata_masking: tuple[float, ...] = ()
    """Chance of each of the model's fields to be replaced by the missing pair (0, 0) by itself; () masks none."""
    augmentations: tuple[tuple[str, float], ...] = ()
    """Names in `transformation.augmentations.AUGMENTATIONS` with their strengths, in the order of their work."""


class StepInputs(NamedTuple):
    """What a step computes with, on the device: n patches, of this process."""

    images: Tensor
    meta: Tensor | None
    valid: Tensor
    visible: Tensor | None
    """(n, N) bool, patches among which the mask is drawn; None means all."""
    mask_noise: Tensor
    """(n, N) uniform numbers that decide the mask."""
    presampled: PassNoise
    """Routing noise and dropout masks."""
    number: Tensor
    """() float32, of the step."""
    known: Tensor | None = None
    """The metadata before some were dropped or masked; None where no target asks for them."""
    bands: Tensor | None = None
    """(n, C) bool, the bands that the encoder is given; None where that is all of them."""
    second_mask: Tensor | None = None
    """(n, N) as `mask_noise`, for a second view of the images; None where no target asks for one."""
    second_noise: tuple[LayerNoise, ...] = ()
    """Routing noise and dropout masks of its encoder."""


class StepResult(NamedTuple):
    """Measurements of one step over the whole batch, on the device."""

    losses: Losses
    grad_norm: Tensor
    """Before clipping."""
    chosen: Tensor
    """(E,) how many tokens chose each expert, the encoder's blocks one after another."""
    counted: Tensor
    """Patches with a valid pixel."""
    targets: Tensor | None = None
    """(T,) mean errors of the targets; empty where there are none."""


class TrainStep:
    """Forward, backward, clip, update.

    With several processes each computes its rows of the batch. The sums that the losses follow from are added up over
    the processes before anything nonlinear is done with them, so that the losses and gradients are those of the whole
    batch on one process, but for rounding.

    Args:
        model: in training mode, on the device.
        optimizer: fused, where the device has that.
        options: the recipe.
        scaler: of the loss, for float16; disabled otherwise.
        processes: those that share the batch.
        compilation: whether the forward and backward pass are compiled and, on CUDA in one process, the whole step
            is replayed as one graph; needs batches of one shape.
        targets: what is predicted beside the pixels, on the device; its heads are among the optimizer's parameters.
        average: of the model's weights, that every step is taken into; None for none.
    """

    def __init__(
        self,
        model: MOEMAE,
        optimizer: torch.optim.Optimizer,
        options: StepOptions,
        scaler: torch.amp.GradScaler,
        processes: Processes = ALONE,
        compilation: Compilation = EAGER,
        targets: Targets | None = None,
        average: WeightAverage | None = None,
    ) -> None:
        self.targets, self.average = targets, average
        self.model, self.optimizer, self.options = model, optimizer, options
        self.scaler, self.processes = scaler, processes
        self.device = next(model.parameters()).device
        self.rows = Part(processes.rank, processes.count).of(options.batch_size)
        self.objective: torch.nn.Module = Objective(model, options.autocast, compilation, targets)
        if processes.count > 1:
            self.objective = DistributedDataParallel(self.objective)
        capturable = self.device.type == "cuda" and processes.count == 1 and not scaler.is_enabled()
        captured = compilation.wanted and capturable
        self._looks_at_pixels = self.device.type == "cpu" and not compilation.wanted
        self._run = CapturedStep(self.compute, compilation.say) if captured else self.compute
        self._buffers = NoiseBuffers(model.config, model.masking, options.batch_size, self.device, self.rows)
        self._second_buffers = None
        if targets is not None and targets.uses_second:
            self._second_buffers = NoiseBuffers(model.config, model.masking, options.batch_size, self.device, self.rows)
        self._number = torch.zeros((), device=self.device)
        self._nan_guard = NanGuard(self.device)

    def __call__(self, batch: Batch, step: int, lr: float) -> StepResult:
        """One step.

        The mask, the dropped metadata, the routing noise and the dropout are functions of (seed, role, step).

        Args:
            batch: this process's rows; all of one shape where there are several processes.
            step: its number.
            lr: learning rate.
        """
        set_rate(self.optimizer, lr)
        return self._run(self.inputs(batch, step))

    def inputs(self, batch: Batch, step: int) -> StepInputs:
        """A batch with the random numbers of its step."""
        seed, count = self.options.seed, len(batch.images)
        # Sampled for the whole batch and cut, so that the result does not depend on the number of processes.
        whole = self.options.batch_size
        mask = generator(seed, "mask", step, device=self.device)
        noise = torch.rand(whole, self.model.config.num_patches, generator=mask, device=self.device)
        self._buffers.fill(generator(seed, "routing noise and dropout", step, device=self.device))
        self._number.fill_(float(step))
        augmented = self._augmented(batch, step)
        shown = None if batch.meta is None else self._some_masked(self._some_dropped(batch.meta, step), step)
        return StepInputs(
            augmented.images,
            shown,
            augmented.valid,
            self._visible(augmented.valid),
            noise[self.rows][:count],
            self._buffers.first(count),
            self._number,
            None if self.targets is None else batch.meta,
            augmented.bands,
            *self._second_view(step, count),
        )

    def _second_view(self, step: int, count: int) -> tuple[Tensor | None, tuple[LayerNoise, ...]]:
        """Mask noise and the encoder's noise of a second view of the images, where a target asks for one."""
        if self._second_buffers is None:
            return None, ()
        source = generator(self.options.seed, "second routing noise and dropout", step, device=self.device)
        self._second_buffers.fill(source)
        noise = self._uniform("second mask", step, count, self.model.config.num_patches)
        return noise, self._second_buffers.first(count).encoder

    def _augmented(self, batch: Batch, step: int) -> Augmented:
        """The batch after every augmentation of the recipe."""
        augmented = Augmented(batch.images, batch.valid, batch.bands)
        for name, strength in self.options.augmentations:
            row = AUGMENTATIONS[name]
            draw = self._uniform("augmentation " + name, step, len(batch.images), row.numbers)
            augmented = row.apply(augmented, draw, strength)
        if batch.images.shape[1] != self.model.config.in_channels:  # missing bands are the first sensor's
            augmented = augmented._replace(bands=None)
        return augmented

    def _visible(self, valid: Tensor) -> Tensor | None:
        """Visible patches; None, which costs less, where all are and looking is free. Compiled steps have them."""
        config = self.model.config
        if config.published_behaviour:
            return None
        look = visible_unless_all if self._looks_at_pixels else visible_patches
        return look(valid, config.patch_size)

    def _some_masked(self, meta: Tensor, step: int) -> Tensor:
        """Metadata (n, F, 2) with every field, by itself, set to the missing pair (0, 0) by its own chance."""
        if not any(self.options.metadata_masking):
            return meta
        shares = torch.tensor(self.options.metadata_masking, device=self.device)
        draw = self._uniform("metadata masking", step, len(meta), len(shares))
        return meta * (draw >= shares).unsqueeze(-1)

    def _uniform(self, role: str, step: int, count: int, *shape: int) -> Tensor:
        """(count, *shape) uniform numbers for this process's first rows: sampled for the whole batch and cut."""
        source = generator(self.options.seed, role, step, device=self.device)
        numbers = torch.rand(self.options.batch_size, *shape, generator=source, device=self.device)
        return numbers[self.rows][:count]

    def _some_dropped(self, meta: Tensor, step: int) -> Tensor:
        """Metadata (n, F, 2) with a random share of the patches' rows set to the missing pair (0, 0)."""
        share = self.options.metadata_dropout
        if share == 0.0:
            return meta
        return meta * (self._uniform("metadata dropout", step, len(meta), 1, 1) >= share)

    def compute(self, inputs: StepInputs) -> StepResult:
        """The part of a step that is the same work every time: nothing in it depends on values on the host."""
        self.optimizer.zero_grad(set_to_none=True)
        sums, chosen = self.objective(
            inputs.images,
            inputs.meta,
            inputs.valid,
            inputs.visible,
            inputs.mask_noise,
            inputs.presampled,
            inputs.known,
            inputs.bands,
            inputs.second_mask,
            inputs.second_noise,
        )
        counted = inputs.valid.flatten(1).any(dim=1).sum().float()
        sums, chosen, counted = self._of_all(sums, chosen, counted)
        losses, errors = self._losses(sums)
        # Gradients are averaged over processes, and each of them has only its rows' part.
        self.scaler.scale(losses.total * self.processes.count).backward()
        self.scaler.unscale_(self.optimizer)
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        grad_norm = torch.nn.utils.clip_grad_norm_(trained, self.options.grad_clip)
        losses = Losses(*(value.detach() for value in losses))
        self._update(losses, grad_norm, inputs.number)
        if self.average is not None:
            self.average.update(inputs.number)
        return StepResult(losses, grad_norm, chosen, counted, errors)

    def _losses(self, sums: Tensor) -> tuple[Losses, Tensor]:
        """The losses of the whole batch from its sums, and the targets' errors, which the total includes."""
        experts, weights = self.model.config.experts, self.options.weights
        if self.targets is None:
            return losses_of(sums, experts, weights), sums[:0].detach()
        reconstruction, of_targets = sums.split([len(sums) - 2 * len(self.targets.names), 2 * len(self.targets.names)])
        losses, errors = losses_of(reconstruction, experts, weights), self.targets.errors(of_targets)
        return losses._replace(total=losses.total + self.targets.loss(errors)), errors.detach()

    def _of_all(self, sums: Tensor, chosen: Tensor, counted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of the whole batch; the gradient of the sums is still that of this process's part."""
        if self.processes.count == 1:
            return sums, chosen, counted
        mine = torch.cat([sums.detach(), chosen, counted[None]])
        total, chosen, counted = self.processes.sum(mine).split([len(sums), len(chosen), 1])
        return sums + (total - sums.detach()), chosen, counted[0]

    def _update(self, losses: Losses, grad_norm: Tensor, number: Tensor) -> None:
        """The optimizer's step, unless this step or an earlier one was not finite."""
        self._nan_guard.note(losses, grad_norm, number, scaled=self.scaler.is_enabled())
        if self.scaler.is_enabled():
            # float16 overflows now and then; the scaler leaves such a step out and lowers its scale.
            self.scaler.step(self.optimizer)
            self.scaler.update()
            return
        # What a loss scaler tells fused optimizers: with `found_inf` 1, leave everything as it is.
        # (Attributes that fused optimizers read and that type stubs do not know.)
        self.optimizer.grad_scale, self.optimizer.found_inf = None, self._nan_guard.broken  # pyright: ignore
        self.optimizer.step()
        del self.optimizer.grad_scale, self.optimizer.found_inf  # pyright: ignore

    def require_finite(self) -> None:
        """Wait for the device and look whether a step was not finite; the weights are those before it.

        Raises:
            TrainingDiverged: naming the first such step and its loss term or gradient norm.
        """
        self._nan_guard.require_finite()
        if self.scaler.is_enabled() and self.scaler.get_scale() < SMALLEST_SCALE:
            raise diverged("gradient norm", math.inf, int(self._number.item()))
