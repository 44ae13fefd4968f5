"""Every key of a configuration of `python -m studies.recipe`: a ladder of recipes, and the patches that judge them."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from configs.reproduction import (
    FILLED_IN,
    BootstrapSection,
    EmbeddingSection,
    ReproductionConfig,
    RunName,
    SourceSection,
    source_problems,
)
from configs.schema import Count, ModelSection, Pool, Text, TrainingSection, model_problems
from utils.config import Problem, Section, load_config

SOURCES = ("pretraining", "choice", "simulated", "real")

BENCHES = ("simulated", "real", "land_cover")
"""Sections of the patches that rows are scored on."""


class LandCoverSection(Section):
    """A scene and its land cover on the same grid, cut into windows."""

    folder: Text
    scene: Text
    """Name of the GeoTIFF in the folder; its nodata value is fill."""
    land_cover: Text
    """Name of the GeoTIFF of class numbers; its nodata value, or 0, is unlabelled."""
    classes: dict[str, Text]
    """Class number, as text, to its name."""
    bands: Annotated[list[Text], Field(min_length=1)]
    """Of the scene, as `data.bands`; what is missing of the seven is filled with the mean."""
    scale: Annotated[float, Field(gt=0.0)]
    offset: float = 0.0
    """Reflectance = number * scale + offset."""
    least_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Of a window's pixels that a class needs to be one of its labels."""
    least_labelled: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of its pixels that have to be labelled."""
    block: Annotated[int, Field(ge=1)] = 4
    """Side of a block of windows that stay together, in windows."""
    folds: Annotated[int, Field(ge=3)] = 5


class RowSection(Section):
    """One row of the ladder: a recipe to pretrain by, or weights to score."""

    title: Text
    after: RunName | None = None
    """The row that it changes and is compared with; None is the config's own recipe, compared with nothing."""
    change: dict[str, Any] = {}
    """Keys of a pretraining config ("training.learning_rate") to values."""
    checkpoint: Text | None = None
    """Weights to score instead."""
    seeds: Annotated[list[Count], Field(min_length=1)] = [0]
    pool: Pool | None = None
    """None takes the best one of `embed.pools` on the patches for choices."""
    seen: list[Text] = []
    """Benches whose patches it was pretrained on: it is not scored there."""


class RecipeConfig(Section):
    """A whole configuration file."""

    title: Text = "What a recipe is worth"
    out_dir: Text = "outputs/recipe"
    result: Text | None = None
    """A JSON file of all rows beside the report, which tables are made from."""
    seed: Count = 0
    model: ModelSection = ModelSection()
    training: TrainingSection = TrainingSection()
    pretraining: SourceSection
    choice: SourceSection
    simulated: SourceSection
    real: SourceSection | None = None
    land_cover: LandCoverSection | None = None
    ladder: dict[RunName, RowSection] = {}
    baselines: list[Text] | None = None
    """Combinations of simple features; None is all. Those that rows are compared with are always there."""
    embed: EmbeddingSection = EmbeddingSection(pools=["cls", "mean", "patch_mean", "meta_cls"])
    bootstrap: BootstrapSection = BootstrapSection()

    def reproduction(self) -> ReproductionConfig:
        """The same for the stages of `studies/engine`, with the patches to pretrain on as main dataset."""
        return ReproductionConfig(
            title=self.title,
            out_dir=self.out_dir,
            seed=self.seed,
            model=self.model,
            training=self.training,
            data=self.pretraining,
            checkpoints={name: row.checkpoint for name, row in self.ladder.items() if row.checkpoint is not None},
            embed=self.embed,
            bootstrap=self.bootstrap,
        )

    def changes(self, name: str) -> dict[str, Any]:
        """All that a row has different from the config's own recipe: its change over those of the rows before it."""
        row = self.ladder[name]
        return {**(self.changes(row.after) if row.after else {}), **row.change}


def read_recipe_config(path: str, overrides: list[str], baselines: tuple[str, ...]) -> RecipeConfig:
    """A validated config.

    Args:
        path: a YAML file.
        overrides: `key.sub=value` texts.
        baselines: those that there are.

    Raises:
        ConfigError: listing every problem.
    """

    def check(config: RecipeConfig, wrong: set[str]) -> Iterator[Problem]:
        for key in SOURCES:
            source = getattr(config, key, None)
            if source is not None:
                yield from source_problems(key, source, wrong)
        yield from model_problems(config.model, wrong, fresh_model=True)
        for key in FILLED_IN:
            if key in config.training.model_fields_set:
                yield f"training.{key}", "is set by this script itself; leave it out"
        if strange := [name for name in config.baselines or () if name not in baselines]:
            yield "baselines", f"knows no {', '.join(map(repr, strange))}; there are {', '.join(baselines)}"
        if "ladder" not in wrong:
            yield from _ladder_problems(config)

    return load_config(RecipeConfig, path, overrides, check)


def _ladder_problems(config: RecipeConfig) -> Iterator[Problem]:
    above: set[str] = set()
    for name, row in config.ladder.items():
        for key in row.change:
            section, _, rest = key.partition(".")
            known = {"model": ModelSection, "training": TrainingSection}.get(section)
            if known is None or rest not in known.model_fields:
                yield f"ladder.{name}.change", f"knows no {key}; it takes keys of model and training, as model.size"
        if strange := [bench for bench in row.seen if bench not in BENCHES]:
            yield f"ladder.{name}.seen", f"knows no {', '.join(map(repr, strange))}; there are {', '.join(BENCHES)}"
        if row.after is not None and row.after not in above:
            yield f"ladder.{name}.after", f"is {row.after}, which is no row above it"
        if row.after is not None and row.after in config.ladder and config.ladder[row.after].checkpoint:
            yield f"ladder.{name}.after", f"is {row.after}, whose recipe a checkpoint does not tell"
        if row.checkpoint is not None and row.change:
            yield f"ladder.{name}.change", "is for rows that are pretrained here; leave it out beside a checkpoint"
        if row.checkpoint is not None and row.seeds != [0]:
            yield f"ladder.{name}.seeds", "is for rows that are pretrained here; leave it out beside a checkpoint"
        above.add(name)
