"""Every key of a configuration of `reproduce.py`; sections `model` and `training` are those of the other scripts."""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Annotated, Literal

from pydantic import Field

from configs.schema import (
    Count,
    DataSection,
    ModelSection,
    Pool,
    Positive,
    Switch,
    Text,
    TrainingSection,
    data_problems,
    model_problems,
)
from datasets.simulator.constants import STANDARD, VARIANTS
from models.pooling import POOLINGS
from utils.config import PathText, Problem, Section, load_config, one_of
from utils.data_config import DATASETS

LabelShare = Annotated[float, Field(gt=0.0, le=1.0)]
MaskRatio = Annotated[float, Field(gt=0.0, lt=1.0)]
RunName = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]

FILLED_IN = ("dataset_path", "dataset_csv", "val_csv", "weight_path", "seed")
"""Keys of `training` that `reproduce.py` sets itself."""

EACH_ONCE = (
    "studies", "protocols", "pretraining_seeds", "embed.pools", "study.seeds", "study.pools", "study.label_shares",
    "study.mask_ratios", "study.experts",
)  # fmt: skip
"""Lists that hold a value once."""

ALL_SPLIT = "all"
"""Name of the one split file that a cross-validation cuts into folds."""


class SimulateSection(Section):
    """Patches made by the simulator, as `python -m datasets.simulated` makes them."""

    patches: Annotated[int, Field(ge=3)]
    seed: Count = 0
    splits: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    variant: Annotated[str, one_of(VARIANTS)] = STANDARD


class SourceSection(DataSection):
    """A dataset: where it is, and which patches are for what. Keys of `data` in the other scripts, and more."""

    simulate: SimulateSection | None = None
    split_by: Literal["given", "area"] = "given"
    shares: dict[Literal["train", "val", "test"], Annotated[float, Field(gt=0.0)]] = {"train": 2, "val": 1, "test": 1}
    folds: Annotated[int, Field(ge=3)] | None = None
    gap: bool = False
    """Of folds and areas: leave out what touches a test patch."""
    pack: bool = False


class EmbeddingSection(Section):
    """How patches become vectors."""

    pools: Annotated[list[Pool], Field(min_length=1)] = ["cls", "mean"]
    amp: bool | Literal["bf16"] = False
    compile: Switch = "auto"


class BootstrapSection(Section):
    """95 % intervals: how often the test patches are drawn again."""

    draws: Annotated[int, Field(ge=100)] = 1000


class StudySection(Section):
    """What the studies compare, and what their runs have different from the main run: only the keys given in `model`
    and `training` are replaced.
    """

    seeds: Annotated[list[Count], Field(min_length=1)] = [0, 1, 2, 3, 4]
    pool: Pool = "cls"
    pools: Annotated[list[Pool], Field(min_length=2)] = list(POOLINGS)
    label_shares: Annotated[list[LabelShare], Field(min_length=2)] = [0.01, 0.05, 0.1, 0.25, 1.0]
    mask_ratios: Annotated[list[MaskRatio], Field(min_length=2)] = [0.25, 0.5, 0.75, 0.9]
    experts: Annotated[list[Annotated[int, Field(ge=3)]], Field(min_length=1)] = [3, 5]
    noise_draws: Positive = 3
    model: ModelSection = ModelSection()
    training: TrainingSection = TrainingSection()
    data: SourceSection | None = None


class ReproductionConfig(Section):
    """A whole configuration file."""

    title: Text = "Reproduction"
    out_dir: PathText = "outputs/reproduction"
    published_behaviour: bool | None = None
    seed: Count = 0
    pretraining_seeds: Annotated[list[Count], Field(min_length=1)] = [0]
    model: ModelSection = ModelSection()
    training: TrainingSection = TrainingSection()
    data: SourceSection = SourceSection()
    eurosat: SourceSection | None = None
    other: SourceSection | None = None
    checkpoints: dict[RunName, PathText] = {}
    embed: EmbeddingSection = EmbeddingSection()
    protocols: Annotated[list[Text], Field(min_length=1)] = ["knn5", "landsat_bench_probe", "strong_probe"]
    bootstrap: BootstrapSection = BootstrapSection()
    studies: list[Text] | Literal["all"] = []
    study: StudySection = StudySection()


def read_reproduction_config(
    path: str, overrides: list[str], studies: tuple[str, ...], protocols: tuple[str, ...]
) -> ReproductionConfig:
    """A validated config for `reproduce.py`.

    Args:
        path: a YAML file.
        overrides: `key.sub=value` texts.
        studies: those that there are.
        protocols: those that there are.

    Raises:
        ConfigError: listing every problem.
    """

    def check(config: ReproductionConfig, wrong: set[str]) -> Iterator[Problem]:
        if "studies" not in wrong and config.studies != "all":
            yield from _unknown("studies", config.studies, studies)
        if "protocols" not in wrong:
            yield from _unknown("protocols", config.protocols, protocols)
        for key in EACH_ONCE:
            if key not in wrong:
                yield from _twice(key, reduce(getattr, key.split("."), config))
        yield from model_problems(config.model, wrong, fresh_model=True)
        both = {**config.model.model_dump(exclude_unset=True), **config.study.model.model_dump(exclude_unset=True)}
        if config.study.model.model_fields_set:
            for key, text in model_problems(ModelSection(**both), wrong, fresh_model=True):
                yield f"study.{key}", text
        for section, training in (("training", config.training), ("study.training", config.study.training)):
            for key in FILLED_IN:
                if key in training.model_fields_set:
                    yield f"{section}.{key}", "is set by reproduce.py itself; leave it out"
        for key in ("data", "eurosat", "other", "study.data"):
            source = config.study.data if key == "study.data" else getattr(config, key)
            if source is not None:
                yield from source_problems(key, source, wrong)

    return load_config(ReproductionConfig, path, overrides, check)


def _twice(key: str, given: Sequence[str | float] | Literal["all"]) -> Iterator[Problem]:
    """Numbers are the same where they print alike: folders and tables name them so."""
    shown = [] if given == "all" else [one if isinstance(one, str) else _short(one) for one in given]
    if several := [one for one in dict.fromkeys(shown) if shown.count(one) > 1]:
        yield key, f"holds {', '.join(several)} more than once"


def _short(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def _unknown(key: str, given: list[str], known: tuple[str, ...]) -> Iterator[Problem]:
    if strange := [name for name in given if name not in known]:
        yield key, f"knows no {', '.join(map(repr, strange))}; there are {', '.join(known) or 'none yet'}"


def source_problems(key: str, source: SourceSection, wrong: set[str]) -> Iterator[Problem]:
    """What does not fit together in one dataset's section."""
    if any(path == key or path.startswith(f"{key}.") for path in wrong):
        return  # it stands at defaults that nobody chose
    for path, text in data_problems(source, wrong):
        yield path.replace("data", key, 1), text
    if source.dataset_csv is not None:
        yield f"{key}.dataset_csv", f"is not read here; name the split files in {key}.splits"
    if (source.dataset_path is None) == (source.simulate is None):
        both = "are both given; set one of them to null" if source.simulate else "are both missing; give one of them"
        yield f"{key}.dataset_path", f"and {key}.simulate {both}"
    info = DATASETS.get(source.dataset)
    simulated = [name for name, known in DATASETS.items() if known.SIMULATOR]
    for name, names in (("simulate", simulated), ("pack", list(DATASETS))):
        if getattr(source, name) and source.dataset not in names:
            yield f"{key}.{name}", f"is for {' and '.join(names)} only"
    if source.dataset_path is not None and source.splits is None:
        yield f"{key}.splits", "is required: split name to file"
    names = set(source.splits or ())
    located = " and ".join(name for name, known in DATASETS.items() if known.IDS_TELL_AREA)
    tells_area = info is not None and info.IDS_TELL_AREA
    if source.folds is not None:
        if source.simulate is None and names != {ALL_SPLIT}:
            yield f"{key}.splits", f"for folds, give one file under the name {ALL_SPLIT!r}, with all patches"
        if not tells_area:
            yield f"{key}.folds", f"are cut by area, which only the names of {located} patches tell"
    elif source.splits is not None and not {"train", "test"} <= names:
        yield f"{key}.splits", f"needs train and test (and val, where there is one), not only {', '.join(names)}"
    if source.gap and source.folds is None and source.split_by != "area":
        yield f"{key}.gap", f"is for {key}.folds and {key}.split_by: area; splits that are given stay as they are"
    if source.split_by == "area" and not tells_area:
        yield f"{key}.split_by", f"area: only the names of {located} patches tell where they are"
    if source.split_by == "area" and not {"train", "test"} <= set(source.shares):
        yield f"{key}.shares", "needs train and test"
