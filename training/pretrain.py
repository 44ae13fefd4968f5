"""The pretraining loop: epochs of steps, validation, log, checkpoints; stops cleanly and goes on exactly."""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import yaml
from torch import nn
from tqdm import tqdm

from configs.build import build_configured_dataset, build_training_dataset
from configs.schema import Config
from datasets.loader import BatchLoader, Part
from datasets.mixture import epoch_order
from datasets.patches import PatchDataset
from eval.evaluate_mae import validation_losses
from models.checkpoint import EXTRA_KEY, Checkpoint, write_checkpoint
from models.moe_mae import MOEMAE, count_parameters
from models.targets import Targets
from training.averaging import WeightAverage
from training.collapse import collapsed_experts, warning
from training.optimizer import load_optimizer, optimizer_of
from training.progress import Progress
from training.recipe import (
    compile_choice,
    first_model,
    first_targets,
    free_keys,
    model_size,
    recipe_of,
    require_same_recipe,
    resolved_run,
    schedule_of,
    step_options,
)
from training.run_folder import RunFolder
from training.run_log import RunLog, utc_now
from training.step import StepResult, TrainStep
from training.stopping import StopSignals
from utils.compilation import Compilation
from utils.config import required
from utils.devices import process_device
from utils.errors import CheckpointError, ConfigError, DataError, TrainingDiverged
from utils.files import write_json, write_text
from utils.processes import ALONE, Processes
from utils.provenance import device_name, provenance

COMPILE_MIN_STEPS = 3000
"""On a CPU `training.compile: auto` compiles runs of so many steps or more."""

LOOK_EVERY = 50
"""Steps between two looks at what an accelerator has noted (losses that are not finite, requests to stop)."""


@contextmanager
def held_folder(config: Config, processes: Processes = ALONE) -> Iterator[None]:
    """Hold the folder of a run, on the main process, from before its files are read until its last one is written.

    Raises:
        UserError: saying who holds it, since when.
    """
    size = processes.share(lambda: model_size(config))
    with ExitStack() as stack:
        folder = RunFolder(config.training.weight_path, size, config.training.val_csv is not None)
        processes.share(lambda: stack.enter_context(folder.held()))
        yield


class Pretraining:
    """One pretraining run: built without touching a file, and begun by `run`.

    Args:
        config: validated.
        resume: go on from the newest checkpoint that verifies, if there is one.
        signals: whether somebody asked to stop.
        processes: those that share every batch; the main one writes.
    """

    def __init__(self, config: Config, resume: bool, signals: StopSignals, processes: Processes = ALONE) -> None:
        training = config.training
        if training.batch_size % processes.count:
            raise ConfigError(
                f"training.batch_size: {training.batch_size} patches cannot be shared equally by {processes.count} "
                "processes; it is the batch of all of them together"
            )
        if processes.count > 1 and training.targets.get("contrast"):
            raise ConfigError(
                "training.targets: contrast tells all patches of a batch apart, which one process has to hold; "
                "run it in one, or leave it out"
            )
        self.config, self.signals, self.processes = config, signals, processes
        self.device = process_device(config.model.device, processes)
        # Files other than the data are the main process's alone: it may be the only one that sees them.
        size = processes.share(lambda: model_size(config))
        self.folder = RunFolder(training.weight_path, size, training.val_csv is not None)
        found = processes.share(lambda: self.folder.newest() if resume else None)
        model = processes.share(lambda: first_model(config)) if found is None else found[0].build()
        self.model = model.to(self.device)
        self.train_set = self._dataset(required(training.dataset_csv, "training.dataset_csv"), build_training_dataset)
        self.val_set = self._dataset(training.val_csv) if training.val_csv else None
        choice = compile_choice(training.compile, self.train_set, processes.count)
        self.loader = BatchLoader(
            self.train_set, training.batch_size, training.num_workers, self.device, config.data.resident
        )
        self.schedule = schedule_of(training.model_dump(), len(self.loader))
        saved = None if found is None else found[0].content.get(EXTRA_KEY, {}).get("run", {}).get("recipe", {})
        self.options = step_options(config, self.model.config, self.device, (saved or {}).get("training"))
        self.targets = self._first_targets(None if found is None else found[0])
        self.average = WeightAverage(self.model, training.ema_decay) if training.ema_decay else None
        self.optimizer = optimizer_of(training, self.model, self._trained(), self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.options.autocast is torch.float16)
        self.fingerprint = self._fingerprint()
        self.resolved = resolved_run(config, self.model, self.train_set, self.options)
        self.recipe = recipe_of(config, self.model, self.resolved)
        names = () if self.targets is None else self.targets.names
        self.progress = Progress(self.model.config, self.device, names)
        self.log = RunLog(self.folder, self.train_set)
        self._asked_to_resume = resume
        self._recipe_changed = False
        # Where the log is cut when the run goes on; the checkpoint itself need not stay in memory.
        self._log_offsets: dict[str, int] | None = None if found is None else found[1]["log_offsets"]
        if found is not None:
            self._take_up(found)
        self.compilation = Compilation.chosen(choice, self.device, self._steps_left(), COMPILE_MIN_STEPS, processes.say)
        self.step = TrainStep(
            self.model,
            self.optimizer,
            self.options,
            self.scaler,
            processes,
            self.compilation,
            self.targets,
            self.average,
        )

    # ------------------------------------------------------------------ setting up

    def _dataset(self, split: str, build: Callable[..., PatchDataset] = build_configured_dataset) -> PatchDataset:
        path = required(self.config.training.dataset_path, "training.dataset_path")
        dataset = build(self.config, self.model.config, path, split)
        dataset.hold_in_memory()
        return dataset

    def _first_targets(self, found: Checkpoint | None) -> Targets | None:
        """The targets with the heads, filters and scales to begin with: drawn and fitted, or those that were saved."""
        targets = self.processes.share(lambda: first_targets(self.config, self.model.config, self.train_set))
        saved = None if found is None else found.content.get(EXTRA_KEY, {}).get("run", {}).get("targets")
        if targets is not None and saved is not None:
            targets.load_state_dict(saved)
        return None if targets is None else targets.to(self.device)

    def _trained(self) -> nn.Module:
        """Everything that has weights to train."""
        return self.model if self.targets is None else nn.ModuleList([self.model, self.targets])

    @property
    def _for_use(self) -> MOEMAE:
        """The model that is validated and given away."""
        return self.model if self.average is None else self.average.model

    def _steps_left(self) -> int:
        done = self.progress.epoch * len(self.loader) + self.progress.batch_in_epoch
        return self.config.training.epochs * len(self.loader) - done

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

    def _take_up(self, found: tuple[Checkpoint, dict[str, Any]]) -> None:
        """Go on with a saved run; refuses another recipe or other data."""
        path, content = found[0].path, found[0].content
        saved = content.get(EXTRA_KEY, {}).get("run")
        if saved is None:
            raise CheckpointError(f"{path}: holds no training run to go on with; start afresh without --resume")
        steps = len(self.loader)
        done = saved["epoch"] * steps + saved["batch_in_epoch"]
        free = free_keys(saved["recipe"]["training"], self.recipe["training"], steps, done)
        require_same_recipe(path, saved["recipe"], self.recipe, free)
        self._recipe_changed = bool(free)
        if saved["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                f"{path}: was trained on other data than {self.config.training.dataset_path} holds now "
                "(fingerprints differ); restore the data, or start afresh without --resume"
            )
        load_optimizer(self.optimizer, content["opt_state"])
        if self.average is not None:
            self.average.model.load_state_dict(saved["average"])
        self.scaler.load_state_dict(content["scaler_state"])
        self.progress.restore(saved, content["best_train_loss"])

    def _manifest(self) -> dict[str, Any]:
        return {
            **provenance(self.device),
            "started": utc_now(),
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

    def _prepare_folder(self) -> None:
        """Move an earlier run away, or cut its log back to the checkpoint that this one goes on from."""
        if self._log_offsets is None and self._asked_to_resume:
            self.processes.say(f"nothing to resume in {self.folder.folder}; starting fresh")
        if not self.processes.main:
            return
        if self._log_offsets is not None:
            self.folder.settle()
            # Lines that were written after the checkpoint will be written again.
            self.folder.cut_to(self._log_offsets)
            if self._recipe_changed:
                manifest = json.loads(self.folder.manifest.read_text(encoding="utf-8"))
                self._write_records({**manifest, "recipe": self.recipe})
            return
        manifest = self._manifest()
        self.folder.start_afresh()
        self._write_records(manifest)

    def _write_records(self, manifest: dict[str, Any]) -> None:
        write_text(self.folder.config, yaml.safe_dump(self.resolved, sort_keys=False))
        write_json(self.folder.manifest, manifest)

    def run(self) -> int:
        """Train to the end, or until SIGTERM or SIGINT, which save and stop; returns the exit code."""
        say, progress, epochs = self.processes.say, self.progress, self.config.training.epochs
        self._prepare_folder()
        self._say_what_runs()
        if progress.epoch >= epochs:
            say(f"this run is finished ({progress.epoch} epochs); nothing to do")
            return 0
        self.signals.at_a_step = True
        stopped = False
        while progress.epoch < epochs and not stopped:
            stopped = self._run_epoch()
        if self.processes.main:
            self.log.draw_curve()
        if stopped:
            self._save()
            say(f"stopped by a signal in epoch {progress.epoch + 1}; saved. Go on with --resume")
            return self.signals.exit_code(self.signals.received or signal.SIGTERM)
        say(f"finished; weights in {self.folder.last}, best in {self.folder.best}")
        return 0

    def _run_epoch(self) -> bool:
        """Train for the rest of an epoch; True where somebody asked to stop."""
        steps, training, progress = len(self.loader), self.config.training, self.progress
        # A function of seed and epoch, so that a resumed epoch goes on in the same order.
        order = epoch_order(self.train_set, self.options.seed, progress.epoch)
        started, first_patches = time.monotonic(), progress.sums.patches
        bar = tqdm(
            total=steps,
            initial=progress.batch_in_epoch,
            desc=f"epoch {progress.epoch + 1}/{training.epochs}",
            leave=False,
            disable=None if self.processes.main else True,
        )
        part = Part(self.processes.rank, self.processes.count)
        # Compiled code and collective operations need the last batch to have the shape of all others.
        padded = self.compilation.wanted or part.count > 1
        self.model.train()
        stopped = False
        for batch in self.loader.training_batches(order, progress.batch_in_epoch, part, padded):
            step = progress.epoch * steps + progress.batch_in_epoch
            lr = self.schedule(step)
            result = self.step(batch, step, lr)
            patches = min(training.batch_size, len(order) - progress.batch_in_epoch * training.batch_size)
            progress.sums.add(result, lr, patches)
            # Counted before anything can stop the run, so that a checkpoint never repeats a step it has the effect of.
            progress.batch_in_epoch += 1
            stopped = self._look(step, bar, result)
            bar.update()
            if stopped:
                break
            if training.save_every_n_steps and (step + 1) % training.save_every_n_steps == 0:
                self._save()
        bar.close()
        if progress.batch_in_epoch < steps or stopped:
            return stopped
        # Between two looks a step may have gone wrong; nothing of such an epoch is to be logged or saved.
        self.step.require_finite()
        seconds = time.monotonic() - started
        self._finish_epoch((progress.sums.patches - first_patches) / seconds)
        return False

    def _look(self, step: int, bar: tqdm, result: StepResult) -> bool:
        """Read what the device has noted, every step on a CPU, now and then elsewhere; True if it is time to stop."""
        alone = self.processes.count == 1
        # On an accelerator every look waits for the steps that are queued.
        if self.device.type != "cpu" and step % LOOK_EVERY:
            return alone and self.signals.received is not None
        self.step.require_finite()
        if not bar.disable and time.monotonic() - bar.last_print_t >= bar.mininterval:
            bar.set_postfix(loss=f"{result.losses.total.item():.2f}", refresh=False)
        if alone:
            return self.signals.received is not None
        # A signal may reach one process only: they stop at the same step, or the others would wait for it forever.
        return self.processes.sum(torch.tensor(float(self.signals.received is not None))).item() > 0

    def _finish_epoch(self, throughput: float) -> None:
        """Validate, log, and write what the epoch earned."""
        if not self.progress.sums.counted_patches:
            raise DataError(f"{self.config.training.dataset_csv}: no patch of it has a single valid pixel")
        row = {"epoch": self.progress.epoch + 1, **self.progress.sums.averages()}
        row["collapsed_experts"] = self._collapsed(row)
        if self.val_set is not None:
            row.update(self._validate(self.val_set))
        if self.processes.main:
            self.log.add(row, throughput)
        self._keep(row)

    def _collapsed(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The experts that the epoch hardly used, for the log; a warning for those that it used no longer."""
        collapsed = collapsed_experts(row["expert_usage"])
        for one in self.progress.alarm.new(collapsed):
            self.processes.say(warning(one, row["epoch"]))
        return [one._asdict() for one in collapsed]

    def _validate(self, dataset: PatchDataset) -> dict[str, float]:
        training = self.config.training
        loader = BatchLoader(dataset, training.batch_size, training.num_workers, self.device)
        losses = validation_losses(self._for_use, loader, self.options.seed, self.options.weights, self.processes)
        if not losses["val_patches"]:
            raise DataError(f"{training.val_csv}: no patch of it has a single valid pixel")
        if not math.isfinite(losses["val_loss"]):
            raise TrainingDiverged(f"validation loss is {losses['val_loss']} after epoch {self.progress.epoch + 1}")
        return losses

    # ------------------------------------------------------------------ writing

    def _keep(self, row: dict[str, Any]) -> None:
        """Go on to the next epoch, and write what this one earned: best, last, checkpoint."""
        training = self.config.training
        best = self.progress.finish_epoch(row)
        done = self.progress.epoch
        finished = done == training.epochs
        written = {self.folder.best: best, self.folder.last: finished}
        for path in (path for path, due in written.items() if due and self.processes.main):
            write_checkpoint(path, self._for_use, epoch=done - 1, best_train_loss=self.progress.best_train_loss)
        if finished or done % training.save_every_n_epochs == 0:
            self._save()
        if self.processes.main:
            self.log.draw_curve_if_due()

    def _save(self) -> None:
        # A checkpoint with NaN in it would replace the last good one.
        self.step.require_finite()
        if not self.processes.main:
            return
        progress = self.progress
        record = {
            "epoch": progress.epoch,
            "batch_in_epoch": progress.batch_in_epoch,
            "seed": self.options.seed,
            "dataset_fingerprint": self.fingerprint,
            "log_offsets": self.folder.offsets(),
            "recipe": self.recipe,
        }
        beside = {} if self.targets is None else {"targets": self.targets.state_dict()}
        if self.average is not None:
            beside["average"] = self.average.model.state_dict()
        self.folder.save(
            self.model,
            record,
            epoch=progress.epoch - 1,
            best_train_loss=progress.best_train_loss,
            opt_state=self.optimizer.state_dict(),
            scaler_state=self.scaler.state_dict(),
            extra={"run": {"recipe": self.recipe, "fingerprint": self.fingerprint, **progress.state(), **beside}},
        )
