"""Every key of a configuration of `finetune.py`: the encoder, a head on it, labelled images or a labelled scene."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from configs.schema import Config, Count, DataSection, ModelSection, Pool, Positive, Share, Text, Weight, data_problems
from datasets.image_bands import band_names
from utils.config import PathText, Problem, Section, load_config

Rate = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
SEGMENTATION = "segmentation"
IMAGE_TASKS = ("multilabel", "multiclass")
TRAIN, VAL, TEST = "train", "val", "test"
PARTS = (TRAIN, VAL, TEST)


class EncoderSection(Section):
    """What becomes of the pretrained weights."""

    mode: Literal["frozen", "lora", "whole"] = "frozen"
    rank: Positive = 8
    """Of the adapters on the attention's projections."""
    alpha: Rate = 16.0
    """What an adapter says counts alpha / rank times."""
    learning_rate: Rate = 2e-4
    """Of adapters or weights; the head has its own."""


class HeadSection(Section):
    """What is learned on top of the tokens."""

    kind: Literal["linear", "decoder"] = "linear"
    pool: Pool | None = None
    """Of a linear head on images; None: the pooling that the weights are read out with."""
    tokens: bool = True
    pixels: bool = True
    """What the decoder sees."""
    token_numbers: Positive = 48
    filters: Positive = 32
    """Of each of the two banks of convolutions."""
    hidden: Positive = 112
    mixing: list[Annotated[int, Field(ge=1, le=9)]] = [5, 5]
    """Sides, in pixels, of the depthwise convolutions between hidden layers."""
    dropout: Share = 0.1


class LabelledSceneSection(Section):
    """A scene and its labels: a raster of classes, or polygons or points."""

    scene: Text
    labels: Text
    column: Text | None = None
    bands: Annotated[list[Text], Field(min_length=1)] | None = None
    """Names of the bands of one GeoTIFF that is no product of Landsat 8 or 9; what is missing is filled."""
    scale: Rate | None = None
    offset: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Reflectance = number * scale + offset."""


class MaskedImagesSection(Section):
    """A folder of images, and one with a mask of class numbers for each, of the same name."""

    images: Text
    masks: Text
    bands: Annotated[list[Text], Field(min_length=1)] | None = None
    scale: Rate | None = None
    offset: Annotated[float, Field(allow_inf_nan=False)] = 0.0


class GroundSection(Section):
    """What segmentation learns from."""

    scenes: list[LabelledSceneSection] = []
    folder: MaskedImagesSection | None = None
    classes: dict[Text, Text] = {}
    """Names of classes in the labels to those of the maps; those that are left out are unlabelled. Empty: all."""
    block: Positive = 50
    """Side of the squares of a scene that stay in one part, in pixels."""
    shares: dict[Literal["train", "val", "test"], Annotated[float, Field(gt=0.0)]] = {"train": 5, "val": 1, "test": 4}
    """Of the squares, or of the images of a folder."""
    stride: Positive = 20
    """Between windows of the encoder, in pixels."""


class FitSection(Section):
    """How the head, and what else is trained, learn."""

    epochs: Positive = 12
    steps: Positive = 40
    """Of an epoch of crops; images are seen once an epoch."""
    batch_size: Positive = 8
    crop: Positive = 48
    """Side of a crop of a scene, in pixels, a multiple of the model's patch."""
    learning_rate: Rate = 2e-3
    weight_decay: Weight = 0.02
    warmup_fraction: Share = 0.05
    ema_decay: Share = 0.99
    prior_weight: Weight = 0.5
    """Share of the logarithm of class frequencies that is added to the scores in training, so that rare classes
    count more than their share (Menon et al. 2021, arXiv:2007.07314)."""
    rare_share: Share = 0.3
    """Of crops that are drawn around a class that all are drawn from equally."""
    patience: Positive = 8
    """Epochs without a better score on the validation part after which the run ends."""
    symmetries: Literal[1, 8] = 8
    """Of the square, over which probabilities are averaged."""
    weight_path: PathText = "outputs/finetuning"
    seed: Count = 0


class FinetuningConfig(Section):
    """A whole configuration file."""

    task: Literal["multilabel", "multiclass", "segmentation"]
    published_behaviour: bool | None = None
    model: ModelSection = ModelSection(checkpoint_path="xxs")
    encoder: EncoderSection = EncoderSection()
    head: HeadSection = HeadSection()
    data: DataSection = DataSection()
    ground: GroundSection = GroundSection()
    training: FitSection = FitSection()

    def resolved(self) -> dict[str, Any]:
        """Plain values that give the same config again, with what goes by default."""
        values = self.model_dump(mode="json", exclude_none=True, exclude={"data", "ground"})
        for name in ("data", "ground"):  # each is for some tasks; in the other ones it is not to be there
            section = getattr(self, name)
            values[name] = section.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        if self.task == SEGMENTATION:
            values["ground"] = self.ground.model_dump(mode="json", exclude_none=True)
        return {name: value for name, value in values.items() if value != {}}

    def of_images(self) -> Config:
        """The same model and data for what other scripts share."""
        return Config(published_behaviour=self.published_behaviour, model=self.model, data=self.data)


def read_finetuning_config(path: str, overrides: list[str]) -> FinetuningConfig:
    """A validated config.

    Args:
        path: a YAML file.
        overrides: `key.sub=value` texts.

    Raises:
        ConfigError: listing every problem.
    """

    def check(config: FinetuningConfig, wrong: set[str]) -> Iterator[Problem]:
        if config.model.checkpoint_path is None:
            yield "model.checkpoint_path", "is required by this script"
        if wrong & {"task", "head", "head.kind"}:
            return
        yield from _ground_problems(config) if config.task == SEGMENTATION else _image_problems(config, wrong)

    return load_config(FinetuningConfig, path, overrides, check)


def _image_problems(config: FinetuningConfig, wrong: set[str]) -> Iterator[Problem]:
    yield from data_problems(config.data, wrong)
    if config.head.kind == "decoder":
        yield "head.kind", f"decoder makes maps, for task: segmentation, not {config.task}"
    if config.data.dataset_path is None:
        yield "data.dataset_path", "is required by this script"
    if missing := [part for part in (TRAIN, VAL) if part not in (config.data.splits or {})]:
        yield "data.splits", f"lacks {' and '.join(missing)}: one is learned from, the other ends the run in time"
    if config.ground.model_fields_set:
        yield "ground", f"is for task: segmentation, not {config.task}"


def _ground_problems(config: FinetuningConfig) -> Iterator[Problem]:
    ground, head = config.ground, config.head
    if bool(ground.scenes) == (ground.folder is not None):
        yield "ground", "takes scenes, or a folder of images and masks: one of the two"
    if not (head.tokens or head.pixels):
        yield "head", "sees neither tokens nor pixels; leave one of them on"
    if missing := [part for part in PARTS if part not in ground.shares]:
        yield "ground.shares", f"lacks {', '.join(missing)}"
    if even := [side for side in head.mixing if side % 2 == 0]:
        yield "head.mixing", f"has an even side, {even[0]}; give odd ones"
    if config.data.model_fields_set - {"statistics", "batch_size"}:
        yield "data", "is for images with labels; scenes, or images and masks, stand in ground"
    if not head.tokens and config.encoder.mode != "frozen":
        yield "encoder.mode", f"{config.encoder.mode} changes tokens that head.tokens: false leaves out"
    named = {f"ground.scenes[{at}]": one for at, one in enumerate(ground.scenes)}
    for key, one in {**named, **({"ground.folder": ground.folder} if ground.folder else {})}.items():
        if one.bands is not None:
            try:
                band_names(one.bands)
            except ValueError as error:
                yield f"{key}.bands", str(error)
            if one.scale is None:
                yield f"{key}.scale", "is required with bands: reflectance = number * scale + offset"
