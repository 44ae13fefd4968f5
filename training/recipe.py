"""Settings that determine a run bit for bit: its first model, the options of a step, the recipe that a resume keeps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from configs.build import configured_weights, load_configured_model, loss_weights, resolved_config
from configs.schema import YOUNGER, Config, without_silent
from datasets.loader import shuffled
from datasets.mixture import of_first_sensor
from datasets.patches import PatchDataset
from models.config import ModelConfig, to_record
from models.moe_mae import MOEMAE, build_model
from models.pooling import DEFAULT_POOL
from models.target import Examples, TargetOptions
from models.targets import FITTED_ON, Targets
from scheduler.schedulers import SCHEDULES, Plan, Schedule, same_until
from training.step import StepOptions
from transformation.augmentations import AUGMENTATIONS
from utils.devices import mixed_precision
from utils.errors import CheckpointError, ConfigError
from utils.reporting import reporter
from utils.sensors import OLI

DEFAULT_METADATA_DROPOUT = 0.1
"""So that the missing-metadata pair has been seen in training; 0 with `published_behaviour`, where it was not."""

# Keys that may differ between a run and its continuation: they change where things are, not what is computed.
_FREE_KEYS = ("dataset_path", "dataset_csv", "val_csv", "weight_path", "num_workers", "save_every_n_epochs",
              "save_every_n_steps", "compile")  # fmt: skip

_SCHEDULE_KEYS = ("epochs", "warmup_fraction", "schedule", "decay_fraction")
"""Keys that decide nothing but the rates, and how long they go on."""

_BEFORE: dict[str, dict[str, Any]] = {
    "model": {
        "missing_metadata": "pair",
        "pool": DEFAULT_POOL,
        "position_start": "random",
        "read_depth": None,
        "missing_bands": "mean",
        "sensors": [OLI.name],
    },
    "training": {"reconstruction": "sum", **YOUNGER["training"]},
    "data": {},
}
"""What runs did whose record does not name such a key."""

_PRECISION = {torch.bfloat16: "bf16", torch.float16: "fp16", None: False}


def model_size(config: Config) -> str:
    """The size that names a run's files: as asked, or that of the weights to start from."""
    section = config.model
    if section.size is None and section.checkpoint_path is not None:
        return configured_weights(config).config.size
    return section.size or "S"


def first_model(config: Config) -> MOEMAE:
    """The model that a run begins with, on the CPU: drawn by the run's seed, or with the weights to start from."""
    section, published = config.model, config.published_behaviour
    if section.checkpoint_path is None:
        asked = {**section.numbers(), "published_behaviour": bool(published)}
        model = ModelConfig.of_size(section.size or "S", **asked)
        return build_model(model, seed=config.training.seed, masking=section.masking())
    reporter.info(f"starting from the weights in {section.checkpoint_path}")
    return load_configured_model(config, torch.device("cpu"))


def step_options(
    config: Config, model: ModelConfig, device: torch.device, saved: Mapping[str, Any] | None = None
) -> StepOptions:
    """What every step does, with everything that the config leaves open decided.

    Args:
        config: as given.
        model: that is trained.
        device: where.
        saved: section "training" of the recipe of the run that is resumed.
    """
    training = config.training
    metadata_dropout = training.metadata_dropout
    if metadata_dropout is None:
        metadata_dropout = 0.0 if model.published_behaviour else DEFAULT_METADATA_DROPOUT
    masking = training.metadata_masking
    chances = masking if isinstance(masking, dict) else dict.fromkeys(model.meta_fields, masking)
    return StepOptions(
        seed=training.seed,
        weights=loss_weights(training, model),
        grad_clip=training.grad_clip,
        metadata_dropout=metadata_dropout,
        autocast=_precision(device, training.amp, saved),
        batch_size=training.batch_size,
        metadata_masking=tuple(chances.get(name, 0.0) for name in model.meta_fields),
        augmentations=_augmentations(config, model),
    )


def _precision(device: torch.device, amp: bool | str, saved: Mapping[str, Any] | None) -> torch.dtype | None:
    """As asked; where this processor's speed decides, a resumed run keeps what was decided where it began."""
    if saved is not None and amp == "bf16" and device.type == "cpu" and saved.get("amp") in ("bf16", False):
        return torch.bfloat16 if saved["amp"] else None
    return mixed_precision(device, amp)


def _augmentations(config: Config, model: ModelConfig) -> tuple[tuple[str, float], ...]:
    """Names and strengths; those of strength 0 are left out."""
    asked = config.training.augmentations
    strengths = asked if isinstance(asked, dict) else {name: AUGMENTATIONS[name].strength for name in asked}
    if model.published_behaviour and strengths.get("random_fill"):
        raise ConfigError("training.augmentations: random_fill hides nothing with published_behaviour; leave it out")
    return tuple((name, strength) for name, strength in strengths.items() if strength)


def first_targets(config: Config, model: ModelConfig, dataset: PatchDataset) -> Targets | None:
    """What the run predicts beside the pixels; None for nothing.

    Filters and scales come from its training patches, of two sensors from the first's.
    """
    training = config.training
    seed, options = training.seed, TargetOptions(training.contrast_temperature, tuple(training.target_widths))
    if wide := [width for width in options.widths if width >= model.embed_dim]:
        raise ConfigError(f"training.target_widths: {wide[0]} is not below the model's width, {model.embed_dim}")
    targets = Targets(model, training.targets, seed, options)
    if not targets.names:
        return None
    dataset = of_first_sensor(dataset)
    some = shuffled(len(dataset), seed, 0)[:FITTED_ON]
    batch = dataset.batch(some)
    if batch.meta is None and "metadata" in targets.names:
        raise ConfigError("training.targets: metadata cannot be predicted, as the dataset has none; leave it out")
    targets.fit(Examples(batch.images, batch.valid, batch.meta), seed)
    return targets


def compile_choice(asked: str, dataset: PatchDataset, processes: int) -> str:
    """`training.compile` as it can be done: compiled steps, and those of several processes, need batches of one shape.

    Raises:
        ConfigError: where two sensors were to be compiled or shared.
    """
    if dataset.one_shape:
        return asked
    if asked == "on":
        raise ConfigError("training.compile: batches of two sensors are not compiled; use auto or off")
    if processes > 1:
        raise ConfigError("training.mixture: two sensors are trained in one process; run it in one")
    return "off"


def resolved_run(config: Config, model: MOEMAE, dataset: PatchDataset, options: StepOptions) -> dict[str, Any]:
    """The config with nothing left open, as plain values: see `configs.build.resolved_config`."""
    values = resolved_config(config, model, dataset, {"training"})
    values["training"].update(metadata_dropout=options.metadata_dropout, amp=_PRECISION[options.autocast])
    return values


def recipe_of(config: Config, model: MOEMAE, resolved: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Everything that decides what is computed, as plain values: sections "model", "training" and "data".

    Args:
        config: as given.
        model: that is trained; in a resumed run the saved one.
        resolved: see `resolved_run`.
    """
    return {
        "model": _asked_model(config, model),
        "training": without_silent(
            "training", {key: value for key, value in resolved["training"].items() if key not in _FREE_KEYS}
        ),
        "data": {key: resolved["data"][key] for key in ("dataset", "crop", "statistics")},
    }


def schedule_of(training: Mapping[str, Any], steps_per_epoch: int) -> Schedule:
    """The schedule of a section "training", of a config or a recipe, as plain values."""
    values = {**_BEFORE["training"], **training}
    plan = Plan(
        values["learning_rate"],
        values["epochs"],
        steps_per_epoch,
        values["warmup_fraction"],
        values["decay_fraction"],
    )
    return SCHEDULES[values["schedule"]](plan)


def free_keys(
    saved: Mapping[str, Any], training: Mapping[str, Any], steps_per_epoch: int, done: int
) -> tuple[str, ...]:
    """Keys of a schedule that may change in the middle of a run: where the rates of the steps done stay the same.

    A run at a constant rate can so be prolonged, or cooled down, to the bits of one that was so from the start.

    Args:
        saved: section "training" of the saved recipe.
        training: of the run that would go on.
        steps_per_epoch: of both.
        done: steps behind the saved run.
    """
    if all(saved.get(key) == training.get(key) for key in _SCHEDULE_KEYS):
        return ()
    before, after = (schedule_of(values, steps_per_epoch) for values in (saved, training))
    return _SCHEDULE_KEYS if same_until(before, after, done) else ()


def require_same_recipe(
    path: Path, saved: dict[str, dict[str, Any]], recipe: dict[str, dict[str, Any]], free: tuple[str, ...] = ()
) -> None:
    """Refuse to go on with another recipe than the saved run's.

    Args:
        path: of the checkpoint.
        saved: its recipe.
        recipe: of the run that would go on.
        free: keys of its section "training" that may differ.

    Raises:
        CheckpointError: naming the first key that differs.
    """
    for section, values in recipe.items():
        earlier = _BEFORE.get(section, {})
        before, after = {**earlier, **saved[section]}, {**earlier, **values}
        for key, value in after.items():
            was = before.get(key)
            if was != value and not (section == "training" and key in free):
                raise CheckpointError(
                    f"{path}: {section}.{key} was {was} in the saved run and is {value} now; "
                    "set it back, or start afresh without --resume"
                )


def _asked_model(config: Config, model: MOEMAE) -> dict[str, Any]:
    """The model's numbers with what the config asks in their place: the two differ only in a resumed run."""
    section = config.model
    size = {} if section.size is None else {"size": section.size}
    asked = {key: value for key, value in section.numbers().items() if value is not None}
    if config.published_behaviour is not None:
        asked["published_behaviour"] = config.published_behaviour
    if section.checkpoint_path is None:
        return to_record(ModelConfig.of_size(section.size or "S", **asked), section.masking())
    masking = section.masking(model.masking)
    return {**to_record(model.config, masking), **size, **asked}
