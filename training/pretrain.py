"""The pretraining loop: epochs of steps, validation, log, checkpoints; stops cleanly and goes on exactly."""

import math
import signal
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

from configs.build import build_configured_dataset, load_configured_model, loss_weights, resolved_config
from configs.schema import Config
from datasets.loader import BatchLoader, Part, shuffled
from datasets.patches import PatchDataset
from eval.evaluate_mae import validation_losses
from models.checkpoint import EXTRA_KEY, Checkpoint, read_checkpoint, write_checkpoint
from models.config import ModelConfig
from models.moe_mae import MOEMAE, build_model, count_parameters
from scheduler.schedulers import WarmupCosineLR
from training.averages import EpochSums
from training.collapse import CollapseAlarm, collapsed_experts, warning
from training.optimizer import adamw, load_optimizer
from training.run_folder import CSV_COLUMNS, VALIDATION_COLUMNS, RunFolder
from training.step import StepOptions, StepResult, TrainStep
from training.stopping import StopSignals
from utils.analysis_utils import plot_loss_curve, save_figure
from utils.compilation import Compilation
from utils.devices import mixed_precision, process_device
from utils.errors import CheckpointError, ConfigError, DataError, TrainingDiverged
from utils.files import check_writable, write_json, write_text
from utils.processes import ALONE, Processes
from utils.provenance import device_name, provenance

CURVE_EVERY_SECONDS = 30.0
"""How often the loss curve is redrawn during a run."""

DEFAULT_METADATA_DROPOUT = 0.1
"""So that the missing-metadata pair has been seen in training; 0 with `published_behaviour`, where it was not."""

# Keys that may differ between a run and its continuation: they change where things are, not what is computed.
_FREE_KEYS = ("dataset_path", "dataset_csv", "val_csv", "weight_path", "num_workers", "save_every_n_epochs",
              "save_every_n_steps", "compile")  # fmt: skip

_BEFORE = {"model.missing_metadata": "pair", "training.reconstruction": "sum"}
"""What runs did that were saved before there was such a key."""

COMPILE_MIN_STEPS = 3000
"""On a CPU `training.compile: auto` compiles runs of so many steps or more."""

LOOK_EVERY = 50
"""Steps between two looks at what an accelerator has noted (losses that are not finite, requests to stop)."""


class Pretraining:
    """One pretraining run.

    Args:
        config: validated.
        resume: go on from the newest checkpoint that verifies, if there is one.
        signals: whether somebody asked to stop.
        processes: those that share every batch; the main one writes.
    """

    def __init__(self, config: Config, resume: bool, signals: StopSignals, processes: Processes = ALONE) -> None:
        self.signals, self.processes = signals, processes
        training = config.training
        self.config = config
        if training.batch_size % processes.count:
            raise ConfigError(
                f"training.batch_size: {training.batch_size} patches cannot be shared equally by {processes.count} "
                "processes; it is the batch of all of them together"
            )
        self.device = process_device(config.model.device, processes)
        self.folder = RunFolder(training.weight_path, processes.share(self._size), training.val_csv is not None)
        # Files other than the data are the main process's alone: it may be the only one that sees them.
        found = processes.share(lambda: self._found(resume))
        self.model = (processes.share(self._fresh_model) if found is None else found[0].build()).to(self.device)
        self.train_set = self._dataset(training.dataset_csv)
        self.val_set = self._dataset(training.val_csv) if training.val_csv else None
        self.loader = BatchLoader(
            self.train_set, training.batch_size, training.num_workers, self.device, config.data.resident
        )
        self.schedule = WarmupCosineLR.by_epochs(
            training.learning_rate, training.epochs, len(self.loader), training.warmup_fraction
        )
        self.options = self._options()
        self.compilation = Compilation.chosen(
            training.compile, self.device, self._steps_left(found), COMPILE_MIN_STEPS, processes.say
        )
        self.optimizer = adamw(self.model, self.device, training.learning_rate, training.weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.options.autocast is torch.float16)
        self.fingerprint = self._fingerprint()
        self.recipe = self._recipe()
        self.epoch, self.batch_in_epoch = 0, 0
        self.sums = EpochSums(self.model.config, self.device)
        self.best_loss, self.best_train_loss = float("inf"), float("inf")
        self.alarm = CollapseAlarm()
        self._curve_drawn = time.monotonic()
        self._begin(found, resume)
        self.step = TrainStep(self.model, self.optimizer, self.options, self.scaler, processes, self.compilation)

    # ------------------------------------------------------------------ setting up

    def _size(self) -> str:
        """The size that names the files: as asked, or that of the weights to start from."""
        section = self.config.model
        if section.size is None and section.checkpoint_path is not None:
            return read_checkpoint(section.checkpoint_path).config.size
        return section.size or "S"

    def _found(self, resume: bool) -> tuple[Checkpoint, dict[str, Any]] | None:
        check_writable(self.folder.folder)
        return self.folder.newest() if resume else None

    def _fresh_model(self) -> MOEMAE:
        section, published = self.config.model, self.config.published_behaviour
        if section.checkpoint_path is None:
            asked = {**section.numbers(), "published_behaviour": bool(published)}
            return build_model(ModelConfig.of_size(section.size or "S", **asked), seed=self.config.training.seed)
        print(f"starting from the weights in {section.checkpoint_path}")
        return load_configured_model(self.config, torch.device("cpu"))

    def _dataset(self, split: str) -> PatchDataset:
        path = self.config.training.dataset_path
        dataset = build_configured_dataset(self.config, self.model.config, path, split)
        dataset.hold_in_memory()
        return dataset

    def _steps_left(self, found: tuple[Checkpoint, dict[str, Any]] | None) -> int:
        run = {} if found is None else found[0].content.get(EXTRA_KEY, {}).get("run", {})
        done = run.get("epoch", 0) * len(self.loader) + run.get("batch_in_epoch", 0)
        return self.config.training.epochs * len(self.loader) - done

    def _options(self) -> StepOptions:
        training = self.config.training
        metadata_dropout = training.metadata_dropout
        if metadata_dropout is None:
            metadata_dropout = 0.0 if self.model.config.published_behaviour else DEFAULT_METADATA_DROPOUT
        return StepOptions(
            seed=training.seed,
            weights=loss_weights(training, self.model.config),
            grad_clip=training.grad_clip,
            metadata_dropout=metadata_dropout,
            autocast=mixed_precision(self.device, training.amp),
            batch_size=training.batch_size,
        )

    def _fingerprint(self) -> dict[str, str]:
        found = {"train": self.train_set.fingerprint()}
        if self.val_set is not None:
            found["val"] = self.val_set.fingerprint()
        seen = self.processes.gather(found)
        if not self.processes.share(lambda: all(other == found for other in seen)):
            raise DataError(
                f"{self.config.training.dataset_path}: does not hold the same data on all machines "
                "(fingerprints differ); give them the same"
            )
        return found

    def _recipe(self) -> dict[str, Any]:
        """Everything that decides what is computed, as plain values."""
        resolved = self._resolved()
        return {
            "model": self._asked_model(),
            "training": {key: value for key, value in resolved["training"].items() if key not in _FREE_KEYS},
            "data": {key: resolved["data"][key] for key in ("dataset", "crop", "statistics")},
        }

    def _asked_model(self) -> dict[str, Any]:
        """The model's numbers with what the config asks in their place: the two differ only in a resumed run."""
        section = self.config.model
        size = {} if section.size is None else {"size": section.size}
        asked = {key: value for key, value in section.numbers().items() if value is not None}
        if self.config.published_behaviour is not None:
            asked["published_behaviour"] = self.config.published_behaviour
        if section.checkpoint_path is None:
            return ModelConfig.of_size(section.size or "S", **asked).to_dict()
        return {**self.model.config.to_dict(), **size, **asked}

    def _resolved(self) -> dict[str, Any]:
        values = resolved_config(self.config, self.model.config, self.train_set, {"training"})
        precision = {torch.bfloat16: "bf16", torch.float16: "fp16", None: False}[self.options.autocast]
        values["training"].update(metadata_dropout=self.options.metadata_dropout, amp=precision)
        return values

    def _begin(self, found: tuple[Checkpoint, dict[str, Any]] | None, resume: bool) -> None:
        if found is None:
            if resume:
                self.processes.say(f"nothing to resume in {self.folder.folder}; starting fresh")
            if self.processes.main:
                manifest = self._manifest()
                self.folder.start_afresh()
                write_text(self.folder.config, yaml.safe_dump(self._resolved(), sort_keys=False))
                write_json(self.folder.manifest, manifest)
        else:
            checkpoint, record = found
            self._restore(checkpoint.path, checkpoint.content, record)
        self._say_what_runs()

    def _restore(self, path: Path, content: dict[str, Any], record: dict[str, Any]) -> None:
        """Take up a saved run; refuses another recipe or other data."""
        saved = content.get(EXTRA_KEY, {}).get("run")
        if saved is None:
            raise CheckpointError(f"{path}: holds no training run to go on with; start afresh without --resume")
        for section, values in self.recipe.items():
            for key, value in values.items():
                was = saved["recipe"][section].get(key, _BEFORE.get(f"{section}.{key}"))
                if was != value:
                    raise CheckpointError(
                        f"{path}: {section}.{key} was {was} in the saved run and is {value} now; "
                        "set it back, or start afresh without --resume"
                    )
        if saved["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                f"{path}: was trained on other data than {self.config.training.dataset_path} holds now "
                "(fingerprints differ); restore the data, or start afresh without --resume"
            )
        if self.processes.main:
            self.folder.remove_leftovers()
            self.folder.cut_to(record["log_offsets"])
        load_optimizer(self.optimizer, content["opt_state"])
        self.scaler.load_state_dict(content["scaler_state"])
        self.epoch, self.batch_in_epoch = saved["epoch"], saved["batch_in_epoch"]
        self.best_loss, self.best_train_loss = saved["best_loss"], content["best_train_loss"]
        self.sums.restore(saved["sums"])
        self.alarm.restore(saved.get("collapsed", []))  # runs saved before there was an alarm have none

    def _manifest(self) -> dict[str, Any]:
        return {
            **provenance(self.device),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "processes": self.processes.count,
            "seed": self.options.seed,
            "dataset": self.train_set.name,
            "simulated": self.train_set.simulated,
            "dataset_fingerprint": self.fingerprint,
            "patches": {"train": len(self.train_set), "val": 0 if self.val_set is None else len(self.val_set)},
            "parameters": count_parameters(self.model),
            "recipe": self.recipe,
        }

    def _say_what_runs(self) -> None:
        training, parameters = self.config.training, count_parameters(self.model)
        precision = str(self.options.autocast or torch.float32).removeprefix("torch.")
        shared = f", shared by {self.processes.count} processes" if self.processes.count > 1 else ""
        compiled = ", compiled" if self.compilation.wanted else ""
        self.processes.say(
            f"pretraining size {self.model.config.size} ({parameters:,} parameters) on {len(self.train_set):,} "
            f"{self.train_set.kind}, {training.epochs} epochs of {len(self.loader)} steps, "
            f"{precision}{compiled} on {device_name(self.device)}{shared}"
        )

    # ------------------------------------------------------------------ running

    def run(self) -> int:
        """Train to the end, or until SIGTERM or SIGINT, which save and stop; returns the exit code."""
        say = self.processes.say
        if self.epoch >= self.config.training.epochs:
            say(f"this run is finished ({self.epoch} epochs); nothing to do")
            return 0
        self.signals.at_a_step = True
        stopped = False
        while self.epoch < self.config.training.epochs and not stopped:
            stopped = self._run_epoch()
        self._draw_curve()
        if stopped:
            self._save()
            say(f"stopped by a signal in epoch {self.epoch + 1}; saved. Go on with --resume")
            return self.signals.exit_code(self.signals.received or signal.SIGTERM)
        say(f"finished; weights in {self.folder.last}, best in {self.folder.best}")
        return 0

    def _run_epoch(self) -> bool:
        """Train for the rest of an epoch; True where somebody asked to stop."""
        steps, training = len(self.loader), self.config.training
        order = shuffled(len(self.train_set), self.options.seed, self.epoch)
        started, first_patches = time.monotonic(), self.sums.patches
        bar = tqdm(
            total=steps,
            initial=self.batch_in_epoch,
            desc=f"epoch {self.epoch + 1}/{training.epochs}",
            leave=False,
            disable=None if self.processes.main else True,
        )
        part = Part(self.processes.rank, self.processes.count)
        padded = self.compilation.wanted or part.count > 1
        self.model.train()
        stopped = False
        for batch in self.loader.training_batches(order, self.batch_in_epoch, part, padded):
            step = self.epoch * steps + self.batch_in_epoch
            lr = self.schedule(step)
            result = self.step(batch, step, lr)
            patches = min(training.batch_size, len(order) - self.batch_in_epoch * training.batch_size)
            self.sums.add(result, lr, patches)
            self.batch_in_epoch += 1
            stopped = self._look(step, bar, result)
            bar.update()
            if stopped:
                break
            if training.save_every_n_steps and (step + 1) % training.save_every_n_steps == 0:
                self._save()
        bar.close()
        if self.batch_in_epoch < steps or stopped:
            return stopped
        self.step.require_finite()
        seconds = time.monotonic() - started
        self._finish_epoch((self.sums.patches - first_patches) / seconds)
        return False

    def _look(self, step: int, bar: tqdm, result: StepResult) -> bool:
        """Read what the device has noted, every step on a CPU, now and then elsewhere; True if it is time to stop."""
        alone = self.processes.count == 1
        if self.device.type != "cpu" and step % LOOK_EVERY:
            return alone and self.signals.received is not None
        self.step.require_finite()
        if not bar.disable and time.monotonic() - bar.last_print_t >= bar.mininterval:
            bar.set_postfix(loss=f"{result.losses.total.item():.2f}", refresh=False)
        if alone:
            return self.signals.received is not None
        return self.processes.sum(torch.tensor(float(self.signals.received is not None))).item() > 0

    def _finish_epoch(self, throughput: float) -> None:
        """Validate, log, and write what the epoch earned."""
        if not self.sums.counted_patches:
            raise DataError(f"{self.config.training.dataset_csv}: no patch of it has a single valid pixel")
        row = {"epoch": self.epoch + 1, **self.sums.averages()}
        row["collapsed_experts"] = self._collapsed(row)
        if self.val_set is not None:
            row.update(self._validate())
        if self.processes.main:
            self._log(row, throughput)
        self._keep(row)

    def _collapsed(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The experts that the epoch hardly used, for the log; a warning for those that it used no longer."""
        collapsed = collapsed_experts(row["expert_usage"])
        for one in self.alarm.fallen(collapsed):
            self.processes.say(warning(one, row["epoch"]))
        return [one._asdict() for one in collapsed]

    def _log(self, row: dict[str, Any], throughput: float) -> None:
        self.folder.append_metrics({key: row[key] for key in (*CSV_COLUMNS, *VALIDATION_COLUMNS) if key in row})
        entry = {
            **row,
            "simulated": self.train_set.simulated,
            "patches_per_second": round(throughput, 1),
        }
        self.folder.append_log({**entry, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        self._print_row(row, throughput)

    def _keep(self, row: dict[str, Any]) -> None:
        """Go on to the next epoch, and write what this one earned: best, last, checkpoint."""
        self.best_train_loss = min(self.best_train_loss, row["train_loss"])
        judged = row.get("val_loss", row["train_loss"])
        self.epoch, self.batch_in_epoch = self.epoch + 1, 0
        self.sums = EpochSums(self.model.config, self.device)
        if judged < self.best_loss:
            self.best_loss = judged
            self._write_weights(self.folder.best)
        finished = self.epoch == self.config.training.epochs
        if finished:
            self._write_weights(self.folder.last)
        if finished or self.epoch % self.config.training.save_every_n_epochs == 0:
            self._save()
        if time.monotonic() - self._curve_drawn > CURVE_EVERY_SECONDS:
            self._draw_curve()

    def _validate(self) -> dict[str, float]:
        training = self.config.training
        loader = BatchLoader(self.val_set, training.batch_size, training.num_workers, self.device)
        losses = validation_losses(self.model, loader, self.options.seed, self.options.weights, self.processes)
        if not losses["val_patches"]:
            raise DataError(f"{training.val_csv}: no patch of it has a single valid pixel")
        if not math.isfinite(losses["val_loss"]):
            raise TrainingDiverged(f"validation loss is {losses['val_loss']} after epoch {self.epoch + 1}")
        return losses

    def _print_row(self, row: dict[str, Any], throughput: float) -> None:
        validation = f"  val {row['val_loss']:8.3f}" if "val_loss" in row else ""
        print(
            f"epoch {row['epoch']:4d}  loss {row['train_loss']:8.3f}  masked {row['train_m_loss']:8.3f}{validation}"
            f"  lr {row['avg_lr']:.2e}  {throughput:7.0f} patches/s",
            flush=True,
        )

    # ------------------------------------------------------------------ writing

    def _save(self) -> None:
        self.step.require_finite()
        if not self.processes.main:
            return
        record = {
            "epoch": self.epoch,
            "batch_in_epoch": self.batch_in_epoch,
            "seed": self.options.seed,
            "dataset_fingerprint": self.fingerprint,
            "log_offsets": self.folder.offsets(),
            "recipe": self.recipe,
        }
        run = {
            "recipe": self.recipe,
            "fingerprint": self.fingerprint,
            "epoch": self.epoch,
            "batch_in_epoch": self.batch_in_epoch,
            "best_loss": self.best_loss,
            "sums": self.sums.state(),
            "collapsed": self.alarm.state(),
        }
        self.folder.save(
            self.model,
            record,
            epoch=self.epoch - 1,
            best_train_loss=self.best_train_loss,
            opt_state=self.optimizer.state_dict(),
            scaler_state=self.scaler.state_dict(),
            extra={"run": run},
        )

    def _write_weights(self, path: Path) -> None:
        if not self.processes.main:
            return
        write_checkpoint(path, self.model, epoch=self.epoch - 1, best_train_loss=self.best_train_loss)

    def _draw_curve(self) -> None:
        if not self.processes.main or not self.folder.metrics.exists():  # or stopped within the first epoch
            return
        save_figure(plot_loss_curve(self.folder.metrics, self.train_set.kind), self.folder.curve)
        self._curve_drawn = time.monotonic()
