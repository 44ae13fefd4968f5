"""Pretraining runs and embeddings, each made once for the same inputs (`studies.engine.stages`)."""

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from classification_models.embeddings import read_embeddings, resolve_labels, select_features
from configs.reproduction import ReproductionConfig
from configs.schema import Config
from embed.dataset import COMPILE_MIN_BATCHES, embed_dataset
from eval.probing.representation import Vectors
from models.checkpoint import load_model, write_checkpoint
from models.config import ModelConfig, from_record, to_record
from models.inference.embedder import Embedder
from models.masking import MaskingConfig
from models.moe_mae import MOEMAE, build_model, count_parameters
from models.pooling import POOLINGS
from studies.engine.data import ReproductionData, Source
from studies.engine.embedding import BandsLoader, Metadata, MetadataLoader, NoisyTokens, TokenParts, pooled
from studies.engine.run_config import recipe_of, run_config
from studies.engine.stages import StageCache
from training.pretrain import Pretraining, held_folder
from training.stopping import StopRequested, StopSignals
from transformation.augmentations import BAND_SETS
from utils.compilation import Compilation
from utils.devices import mixed_precision, select_device
from utils.errors import DataError
from utils.files import sha256
from utils.reporting import reporter, reporting_into

OUTPUT = "output.txt"
"""Messages of a quiet pretraining run."""


class Run(NamedTuple):
    """An encoder: pretrained here, untrained, or given."""

    name: str
    """For folders; the same for all seeds and folds."""
    seed: int
    checkpoint: Path
    folder: Path
    """Log, metrics and loss curve of a pretraining run are in it."""
    digest: str
    """Hex SHA-256 of the weights: an input of every stage that uses them."""
    config: ModelConfig
    masking: MaskingConfig
    """Of its training."""
    facts: dict[str, Any]
    """`model` (its config), `parameters`; of a pretrained one `epochs`, `steps`, `patches`, `last` (losses)."""


class SplitRepresentation:
    """One split in one representation.

    Args:
        vectors: or a function that reads them, when they are first asked for.
        digest: changes when they do: an input of every stage that uses them.
    """

    def __init__(self, vectors: Vectors | Callable[[], Vectors], digest: str) -> None:
        self._vectors, self.digest = vectors, digest

    @property
    def vectors(self) -> Vectors:
        if not isinstance(self._vectors, Vectors):
            self._vectors = self._vectors()
        return self._vectors


class Runs:
    """Pretraining and embedding, done once.

    Args:
        cache: of the stages.
        config: the recipe.
        data: the datasets.
        signals: whether somebody asked to stop.
    """

    def __init__(
        self, cache: StageCache, config: ReproductionConfig, data: ReproductionData, signals: StopSignals
    ) -> None:
        self.cache, self.config, self.data, self.signals = cache, config, data, signals
        self.device = select_device(config.model.device)
        self._loaded: tuple[str, MOEMAE] | None = None
        self._given: dict[str, Run | None] = {}

    # ------------------------------------------------------------------ encoders

    def pretrained(
        self,
        overrides: Mapping[str, Any] | None = None,
        seed: int = 0,
        name: str = "main",
        *,
        source: Source | None = None,
        fold: int = 0,
        quiet: bool = True,
    ) -> Run:
        """Pretrain on the train split, or take the run that has been done; an interrupted one continues.

        Args:
            overrides: keys of `configs.schema.Config` ("model.experts", "training.epochs", …) to values, in place of
                those of the reproduction's config; a study adds its own to `StudyContext.study_overrides`.
            seed: of all randomness.
            name: of the run, for folders; `[a-z0-9_/]+`, one name for one set of overrides.
            source: the dataset; None is the main one.
            fold: index of its fold.
            quiet: the run's messages go to a file in its folder.

        Raises:
            StopRequested: when a signal asked to stop; what was done is saved.
        """
        source = source or self.data.main
        place = f"pretrain/{name}/{_fold_name(source, fold)}seed{seed}"
        folder = self.cache.folder / "stages" / place / "run"
        config = run_config(self.config, overrides or {}, source, fold, seed, folder)
        start = config.model.checkpoint_path

        def work(folder: Path) -> dict[str, Any]:
            with contextlib.ExitStack() as stack:
                if quiet:
                    stack.enter_context(reporting_into(folder / OUTPUT))
                return _pretrain(config, self.signals)

        published = bool(config.published_behaviour)
        model = ModelConfig.of_size(img_size=config.model.img_size, published_behaviour=published)
        inputs = {
            "config": recipe_of(config),
            "patches": {
                split: source.dataset(split, model, fold, labels=False).fingerprint()
                for split in ("train", "val")
                if source.split_file(split, fold)
            },
            "start": None if start is None else sha256(start),
        }
        stage = self.cache.stage(place, inputs, work)
        return _run(name, seed, stage.folder / "run" / stage.result["file"], stage.result)

    def untrained(self, overrides: Mapping[str, Any] | None = None, seed: int = 0, name: str = "untrained") -> Run:
        """An encoder of the same architecture with the weights that pretraining would start from."""
        config = run_config(self.config, overrides or {}, self.data.main, 0, seed, self.cache.folder)
        numbers = {**config.model.numbers(), "published_behaviour": bool(config.published_behaviour)}
        model = ModelConfig.of_size(config.model.size or "S", **numbers)
        return self.untrained_of(model, config.model.masking(), seed, name)

    def untrained_of(self, model: ModelConfig, masking: MaskingConfig, seed: int, name: str) -> Run:
        """An encoder of any architecture with the weights that pretraining it would start from."""
        record = to_record(model, masking)

        def work(folder: Path) -> dict[str, Any]:
            built = build_model(model, seed=seed, masking=masking)
            written = write_checkpoint(folder / "untrained.pth", built, epoch=-1, best_train_loss=0.0)
            return {"sha256": written, "model": record, "parameters": count_parameters(built)}

        stage = self.cache.stage(f"untrained/{name}/seed{seed}", {"model": record, "seed": seed}, work, quiet=True)
        return _run(name, seed, stage.folder / "untrained.pth", stage.result)

    def given(self, name: str) -> Run | None:
        """The encoder that the config's `checkpoints` gives under a name; None where its file is not there."""
        if name not in self._given:
            path = Path(self.config.checkpoints[name])
            self._given[name] = self._given_run(name, path) if path.is_file() else None
        return self._given[name]

    def model(self, run: Run) -> MOEMAE:
        """The model of a run, in evaluation mode, on the device."""
        if self._loaded is None or self._loaded[0] != run.digest:
            self._loaded = (run.digest, load_model(run.checkpoint, device=self.device))
        return self._loaded[1]

    # ------------------------------------------------------------------ embeddings

    def embeddings(
        self,
        run: Run,
        pool: str,
        split: str,
        *,
        source: Source | None = None,
        fold: int = 0,
        metadata: Metadata = "given",
        noise: int | None = None,
        bands: str | None = None,
    ) -> SplitRepresentation:
        """Vectors of a split's labelled patches; one pass over the patches serves all pools with `of_parts`.

        Args:
            run: the encoder.
            pool: a key of `models.pooling.POOLINGS`.
            split: "train", "val" or "test".
            source: the dataset; None is the main one.
            fold: index of its fold.
            metadata: what the encoder is conditioned on.
            noise: seed of routing noise; None embeds without, as everywhere else.
            bands: which the encoder is given, a key of `transformation.augmentations.BAND_SETS`; None: all.
        """
        source = source or self.data.main
        kind = pool if POOLINGS[pool].of_parts is None else "parts"
        way = ("" if metadata == "given" else f"{metadata}_metadata/") + ("" if noise is None else f"noise{noise}/")
        way += "" if bands is None else f"{bands}_bands/"
        place = f"embed/{run.name}/seed{run.seed}/{source.key}/{_fold_name(source, fold)}{way}{kind}_{split}"
        inputs = {
            "weights": run.digest,
            "data": source.digest(split, run.config, fold),
            "kind": kind,
            "metadata": metadata,
            "noise": noise,
            "amp": self.config.embed.amp,
            "seed": self.config.seed if metadata == "shuffled" else None,
        }
        inputs |= {} if bands is None else {"bands": list(BAND_SETS[bands])}
        stage = self.cache.stage(
            place,
            inputs,
            lambda folder: self._embed(folder, run, kind, split, source, fold, metadata, noise, bands),
            quiet=True,
        )
        return SplitRepresentation(
            lambda: _vectors(stage.folder / f"{split}.npz", pool, run, source), f"{stage.digest}/{pool}"
        )

    def _embed(
        self,
        folder: Path,
        run: Run,
        kind: str,
        split: str,
        source: Source,
        fold: int,
        metadata: Metadata,
        noise: int | None,
        bands: str | None,
    ) -> dict[str, Any]:
        model, settings = self.model(run), self.config.embed
        loader = source.loader(split, self.device, run.config, fold)
        if metadata != "given":
            loader = MetadataLoader(loader, metadata, self.config.seed)
        if bands is not None:
            loader = BandsLoader(loader, bands)
        everything = Embedder(
            model,
            "all" if kind == "parts" else kind,
            autocast=mixed_precision(self.device, settings.amp),
            compilation=Compilation.chosen(
                settings.compile, self.device, len(loader), COMPILE_MIN_BATCHES, reporter.info
            ),
            batch_size=source.section.batch_size,
        )
        tokens = everything if noise is None else NoisyTokens(model, noise)
        embedder = TokenParts(tokens, run.config) if kind == "parts" else tokens
        return embed_dataset(embedder, loader, folder / f"{split}.npz", split) or {}  # one process: always written

    def _given_run(self, name: str, path: Path) -> Run:
        model = load_model(path)
        record = to_record(model.config, model.masking)
        facts = {"sha256": sha256(path), "model": record, "parameters": count_parameters(model)}
        return _run(f"given_{name}", 0, path, facts)


def _vectors(path: Path, pool: str, run: Run, source: Source) -> Vectors:
    read = read_embeddings(path)
    if read.ids is None:
        raise DataError(f"{path}: holds no ids; remove its folder, and the stage is done again")
    x = select_features(read)
    x = x if POOLINGS[pool].of_parts is None else pooled(x, pool, run.config)
    return Vectors(x, resolve_labels(read, source.multilabel).y, read.ids.tolist())


def _run(name: str, seed: int, checkpoint: Path, facts: dict[str, Any]) -> Run:
    config, masking = from_record(facts["model"])
    return Run(name, seed, checkpoint, checkpoint.parent, facts["sha256"], config, masking, facts)


def _pretrain(config: Config, signals: StopSignals) -> dict[str, Any]:
    """Run or continue a pretraining; returns the facts that a report gives about it."""
    folder = Path(config.training.weight_path)
    with held_folder(config):
        run = Pretraining(config, any(folder.glob("checkpoint_*.pth")), signals)
        try:
            run.run()
        finally:
            signals.at_a_step = False
    if signals.received is not None:
        raise StopRequested(signals.received)
    last = json.loads(run.folder.log.read_text(encoding="utf-8").splitlines()[-1])
    return {
        "file": run.folder.best.name,
        "sha256": sha256(run.folder.best),
        "model": to_record(run.model.config, run.model.masking),
        "parameters": count_parameters(run.model),
        "patches": len(run.train_set),
        "epochs": config.training.epochs,
        "steps": config.training.epochs * len(run.loader),
        "last": {key: last[key] for key in ("train_m_loss", "val_m_loss") if key in last},
    }


def _fold_name(source: Source, fold: int) -> str:
    name = source.folds[fold].name
    return f"{name}/" if name else ""
