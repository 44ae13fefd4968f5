"""Every key of a configuration file, with its type, range and default. One schema serves all scripts."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from datasets.image_bands import LABELLED_FOLDER, TRAIN, band_names
from models.config import MISSING_BANDS, POSITION_STARTS, ModelConfig
from models.inference.runtimes import CHOICES as RUNTIME_CHOICES
from models.masking import MASKING_KEYS, STRATEGIES, MaskingConfig
from models.pooling import POOLINGS
from models.targets import TARGETS
from scheduler.schedulers import SCHEDULES
from transformation.augmentations import AUGMENTATIONS
from utils.config import PathText, Problem, Section, load_config, one_of
from utils.data_config import DATASETS, OTHER_SENSORS, BigEarthNetInfo
from utils.metadata import FIELDS
from utils.sensors import OLI, SENSORS, TAKEN, Sensor

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Chance = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
Pool = Annotated[str, one_of(POOLINGS)]
TargetName = Annotated[str, one_of(TARGETS)]
AugmentationName = Annotated[str, one_of(AUGMENTATIONS)]
MetaField = Annotated[str, one_of(FIELDS)]


def _on_or_off(value: object) -> object:
    """true and false, as other readers of YAML take a bare on or off."""
    return ("on" if value else "off") if isinstance(value, bool) else value


Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)]


class ModelSection(Section):
    """The model. Numbers left out come from `size`, or from the checkpoint where one is loaded."""

    size: Literal["S", "XS", "XXS"] | None = None
    img_size: Positive | None = None
    patch_size: Positive | None = None
    in_channels: Positive | None = None
    meta_fields: list[MetaField] | None = None
    embed_dim: Positive | None = None
    depth: Positive | None = None
    num_heads: Positive | None = None
    num_groups: Positive | None = None
    dfirsth: Positive | None = None
    dlasth: Positive | None = None
    experts: Positive | list[Positive] | None = None
    k: Positive | None = None
    mask_ratio: Share | None = None
    mask_strategy: Annotated[str, one_of(STRATEGIES)] | None = None
    dropout: Share | None = None
    position_std: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    load_loss: Literal["shazeer", "published"] | None = None
    missing_metadata: Literal["pair", "token"] | None = None
    missing_bands: Annotated[str, one_of(MISSING_BANDS)] | None = None
    sensors: list[Text] | None = None
    pool: Pool | None = None
    position_start: Annotated[str, one_of(POSITION_STARTS)] | None = None
    read_depth: Positive | None = None
    checkpoint_path: PathText | None = None
    device: Text = "auto"

    def numbers(self) -> dict[str, object]:
        """What the config asks of `ModelConfig` besides the size; None where it is silent."""
        return self.model_dump(exclude={"size", "checkpoint_path", "device", *MASKING_KEYS})

    def masking_numbers(self) -> dict[str, object]:
        """What the config asks of the masking; None where it is silent."""
        return self.model_dump(include=set(MASKING_KEYS))

    def masking(self, otherwise: MaskingConfig = MaskingConfig()) -> MaskingConfig:  # noqa: B008 - immutable
        """How a run masks, with what is left open taken from `otherwise`."""
        asked = {key: value for key, value in self.masking_numbers().items() if value is not None}
        return MaskingConfig.from_dict({**otherwise.to_dict(), **asked})


class MixtureSection(Section):
    """A second dataset to pretrain on beside the first."""

    share: Annotated[float, Field(gt=0.0, lt=1.0)]
    dataset: Annotated[str, one_of((*DATASETS, *OTHER_SENSORS, LABELLED_FOLDER))] = BigEarthNetInfo.NAME
    dataset_path: Text
    dataset_csv: Text
    crop: Literal["center", "resize"] | None = None
    bands: Text | Annotated[list[Text], Field(min_length=1)] | None = None
    scale: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    offset: Annotated[float, Field(allow_inf_nan=False)] = 0.0


class TrainingSection(Section):
    """Pretraining. Defaults are the paper's recipe."""

    dataset_path: PathText | None = None
    dataset_csv: PathText | None = None
    val_csv: PathText | None = None
    mixture: MixtureSection | None = None
    epochs: Positive = 500
    batch_size: Positive = 128
    learning_rate: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 3e-4
    weight_decay: Weight = 0.05
    warmup_fraction: Share = 0.05
    optimizer: Literal["adamw", "muon"] = "adamw"
    muon_learning_rate: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    ema_decay: Share = 0.0
    schedule: Annotated[str, one_of(SCHEDULES)] = "cosine"
    decay_fraction: Chance = 0.2
    grad_clip: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0
    visible_weight: Weight = 0.1
    balance_weight: Weight = 0.5
    reconstruction: Literal["sum", "mean"] = "sum"
    metadata_dropout: Chance | None = None
    metadata_masking: Chance | dict[MetaField, Chance] = 0.0
    targets: dict[TargetName, Weight] = {}
    contrast_temperature: Annotated[float, Field(gt=0.0, le=10.0)] = 0.1
    target_widths: list[Positive] = []
    augmentations: list[AugmentationName] | dict[AugmentationName, Chance] = []
    weight_path: PathText = "weights/moe_mae_bigearthnet_ls"
    num_workers: Count = 0
    save_every_n_epochs: Positive = 1
    save_every_n_steps: Positive | None = None
    seed: Count = 0
    amp: bool | Literal["auto", "bf16", "fp16"] = "auto"
    compile: Switch = "auto"


class DataSection(Section):
    """Which patches, and how they become the model's input."""

    dataset: Annotated[str, one_of((*DATASETS, *OTHER_SENSORS, LABELLED_FOLDER))] = BigEarthNetInfo.NAME
    dataset_path: PathText | None = None
    dataset_csv: PathText | None = None
    splits: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], PathText] | None = None
    num_workers: Count = 0
    batch_size: Positive = 128
    resident: bool | Literal["auto"] = "auto"
    crop: Literal["center", "resize"] | None = None
    statistics: Annotated[str, one_of(("auto", *DATASETS, TRAIN))] = "auto"
    missing_labels: Literal["error", "skip"] = "error"
    bands: Text | Annotated[list[Text], Field(min_length=1)] | None = None
    scale: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    offset: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    split_seed: Count = 0
    sensor: Annotated[str, one_of(tuple(sensor.name for sensor in TAKEN))] | None = None


class EvalSection(Section):
    """Reconstruction metrics and panels."""

    save_reconstructions_masked: bool | Count = True
    save_reconstructions_full: bool | Count = True
    reconstructions_dir: PathText = "outputs/reconstructions"
    seed: Count = 0


class EmbedSection(Section):
    """Embedding files."""

    pool: Pool | None = None
    out_dir: PathText = "outputs/embeddings"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")] = "embeddings"
    amp: bool | Literal["bf16"] = False
    compile: Switch = "auto"
    backend: Annotated[str, one_of(RUNTIME_CHOICES)] = "torch"


class Config(Section):
    """A whole configuration file."""

    published_behaviour: bool | None = None
    model: ModelSection = ModelSection()
    training: TrainingSection = TrainingSection()
    data: DataSection = DataSection()
    eval: EvalSection = EvalSection()
    embed: EmbedSection = EmbedSection()


YOUNGER: dict[str, dict[str, object]] = {
    "data": {"sensor": None},
    "model": {
        "meta_fields": None,
        "mask_strategy": None,
        "pool": None,
        "position_start": None,
        "read_depth": None,
        "missing_bands": None,
        "sensors": None,
    },
    "training": {
        "metadata_masking": 0.0,
        "targets": {},
        "contrast_temperature": 0.1,
        "target_widths": [],
        "augmentations": [],
        "mixture": None,
        "optimizer": "adamw",
        "muon_learning_rate": None,
        "ema_decay": 0.0,
        "schedule": "cosine",
        "decay_fraction": 0.2,
    },
}
"""Keys that came after runs had been recorded, with their defaults: records name them only where they say something."""


def without_silent(section: str, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a section but for younger keys that say nothing."""
    silent = YOUNGER.get(section, {})
    return {key: value for key, value in values.items() if key not in silent or value != silent[key]}


def read_config(path: str, overrides: list[str], required: tuple[str, ...], fresh_model: bool = False) -> Config:
    """A validated config for one script.

    Args:
        path: a YAML file.
        overrides: `key.sub=value` texts.
        required: paths of keys without which the script cannot run.
        fresh_model: True where the script builds the model itself rather than loading a checkpoint.

    Raises:
        ConfigError: listing every problem.
    """

    def check(config: Config, wrong: set[str]) -> Iterator[Problem]:
        for key in required:
            section, _, name = key.partition(".")
            if key not in wrong and getattr(getattr(config, section), name) in (None, {}):
                yield key, "is required by this script"
        yield from model_problems(config.model, wrong, fresh_model)
        yield from data_problems(config.data, wrong)
        if config.data.dataset in OTHER_SENSORS and config.embed.backend != "torch":
            yield "embed.backend", f"{config.embed.backend} knows Landsat's bands only; use torch"
        if config.training.mixture is not None:
            yield from _mixture_problems(config.training.mixture)
        if fresh_model and config.model.mask_ratio == 0:
            yield "model.mask_ratio", "0 leaves nothing to reconstruct in pretraining"

    return load_config(Config, path, overrides, check)


def model_problems(model: ModelSection, wrong: set[str], fresh_model: bool) -> Iterator[Problem]:
    """What is impossible about the section `model`, as (key, sentence).

    Args:
        model: the section.
        wrong: paths of keys that are known to be wrong and stand at their defaults.
        fresh_model: as for `read_config`.
    """
    if "model.in_channels" not in wrong and model.in_channels not in (None, len(OLI.bands)):
        yield "model.in_channels", f"is {model.in_channels}, but both datasets have {len(OLI.bands)} bands"
    asked = {key: value for key, value in model.numbers().items() if value is not None}
    if not fresh_model and model.size is None:  # the checkpoint decides the rest
        asked = {key: asked[key] for key in ("img_size", "patch_size") if key in asked}
    masking = model.masking() if fresh_model or model.size is not None else None
    for key, text in ModelConfig.problems_of(model.size or "S", masking, **asked):
        involved = _INVOLVED.get(key, (key,))
        if "model.size" in wrong and not all(name in asked for name in involved):
            continue  # some of the numbers would come from the size
        if not wrong & {f"model.{name}" for name in involved}:
            yield f"model.{key}", text


def data_problems(data: DataSection, wrong: set[str]) -> Iterator[Problem]:
    """What is impossible about the section `data`, as (key, sentence); `wrong` as for `model_problems`."""
    if "data.dataset" in wrong:
        return
    if data.dataset in OTHER_SENSORS and data.statistics != "auto" and "data.statistics" not in wrong:
        yield "data.statistics", f"{data.statistics} is Landsat's; leave it out for data.dataset: {data.dataset}"
    if data.dataset != LABELLED_FOLDER:
        for key in ("bands", "scale", "offset", "split_seed", "sensor"):
            if key in data.model_fields_set and f"data.{key}" not in wrong:
                yield f"data.{key}", f"is for data.dataset: labelled_folder, not {data.dataset}"
        if data.statistics == TRAIN:
            yield "data.statistics", f"train is for data.dataset: labelled_folder, not {data.dataset}"
    elif "data.sensor" not in wrong:
        yield from _band_problems(data.bands, "data.bands", SENSORS[data.sensor or OLI.name])


def _mixture_problems(mixture: MixtureSection) -> Iterator[Problem]:
    if mixture.dataset != LABELLED_FOLDER:
        for key in ("bands", "scale", "offset"):
            if key in mixture.model_fields_set:
                yield f"training.mixture.{key}", f"is for dataset: labelled_folder, not {mixture.dataset}"
        return
    if mixture.scale is None:
        yield "training.mixture.scale", "is required of a labelled folder: both datasets share their statistics"
    yield from _band_problems(mixture.bands, "training.mixture.bands")


def _band_problems(bands: str | list[str] | None, key: str, sensor: Sensor = OLI) -> Iterator[Problem]:
    if bands is not None:
        try:
            band_names(bands, sensor)
        except ValueError as error:
            yield key, str(error)


_INVOLVED = {
    "sensors": ("sensors", "in_channels"),
    "img_size": ("img_size", "patch_size"),
    "embed_dim": ("embed_dim", "num_heads"),
    "num_heads": ("num_heads", "num_groups"),
    "experts": ("experts", "depth"),
    "read_depth": ("read_depth", "depth"),
    "k": ("k", "experts"),
    "mask_ratio": ("mask_ratio", "img_size", "patch_size"),
}
"""Which keys each of `ModelConfig.problems` looks at, where it is more than its own: with one of them wrong it would
only repeat that."""
