"""The loop of fine-tuning: epochs, validation, stopping early, and going on after a kill with the same bits."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from tqdm import tqdm

from configs.build import load_configured_model
from configs.finetuning import SEGMENTATION, FinetuningConfig
from finetuning.encoders import TrainedEncoder
from finetuning.folder import ENTRY, FinetuningFolder, plot_curves
from finetuning.learner import ImageLearner, Learner
from finetuning.segmentation import SegmentationLearner
from models.checkpoint import EXTRA_KEY, Checkpoint, read_checkpoint, write_checkpoint
from scheduler.schedulers import WarmupCosineLR
from training.averaging import WeightAverage
from training.run_log import utc_now
from training.stopping import StopSignals
from utils.analysis_utils import save_figure
from utils.devices import select_device
from utils.errors import CheckpointError, TrainingDiverged
from utils.files import write_json, write_npz, write_text
from utils.provenance import provenance
from utils.randomness import derive_seed
from utils.reporting import reporter

GRAD_CLIP = 1.0
STATE = ("epoch", "step", "loss_sum", "best_score", "best_epoch")
"""What a checkpoint keeps of a run's progress."""
SCORE_KEYS = {"miou": "mean IoU", "map_micro": "micro mAP", "accuracy": "accuracy"}


class Finetuning:
    """One run; its folder is held by the caller.

    Args:
        config: validated.
        resume: go on from the newest checkpoint that verifies, if there is one.
        signals: whether somebody asked to stop.
    """

    def __init__(self, config: FinetuningConfig, resume: bool, signals: StopSignals) -> None:
        self.config, self.signals = config, signals
        self.device = select_device(config.model.device)
        self.folder = FinetuningFolder(config.training.weight_path)
        found = self.folder.newest() if resume else None
        base = load_configured_model(config.of_images(), self.device) if found is None else found[0].build(self.device)
        self.encoder = TrainedEncoder(base, config.encoder, config.training.seed)
        self.learner = self._learner()
        self.trained = nn.ModuleDict({"head": self.learner.head, "encoder": self.encoder.trained})
        self.average = WeightAverage(self.trained, config.training.ema_decay)
        self.optimizer = self._optimizer()
        total = config.training.epochs * self.learner.steps
        warmup = round(config.training.warmup_fraction * total)
        self.schedule = WarmupCosineLR(1.0, warmup, total)
        self.epoch, self.step, self.loss_sum = 0, 0, 0.0
        self.best_score, self.best_epoch = float("-inf"), 0
        self.recipe = self._recipe()
        self._log_offsets: dict[str, int] | None = None
        if found is not None:
            self._take_up(found)

    def run(self) -> int:
        """Train until the end, the end of patience, or a signal, which saves first; returns the exit code."""
        self._prepare_folder()
        self._say_what_runs()
        self.signals.at_a_step = True
        while not self.finished:
            if self._run_epoch():
                self._save()
                reporter.info(f"stopped by a signal in epoch {self.epoch + 1}; saved. Go on with --resume")
                return self.signals.exit_code(self.signals.received or signal.SIGTERM)
        self._finish()
        return 0

    @property
    def finished(self) -> bool:
        """After the last epoch, or so many without a better score."""
        training = self.config.training
        return self.epoch >= training.epochs or self.epoch - self.best_epoch >= training.patience

    # ------------------------------------------------------------------ setting up

    def _learner(self) -> Learner:
        if self.config.task == SEGMENTATION:
            return SegmentationLearner(self.config, self.encoder, self.device, self.folder.folder / ".unfinished")
        return ImageLearner(self.config, self.encoder, self.device)

    def _optimizer(self) -> torch.optim.Optimizer:
        """AdamW; biases, norms and adapters do not decay."""
        training, groups = self.config.training, []
        for name, rate in (("head", training.learning_rate), ("encoder", self.config.encoder.learning_rate)):
            parameters = [one for one in self.trained[name].parameters() if one.requires_grad]
            decays = name == "head" or self.config.encoder.mode == "whole"
            for wide in (True, False):
                chosen = [one for one in parameters if (one.dim() > 1) == wide]
                decay = training.weight_decay if wide and decays else 0.0
                if chosen:
                    groups.append({"params": chosen, "lr": rate, "rate": rate, "weight_decay": decay})
        return torch.optim.AdamW(groups)

    def _recipe(self) -> dict[str, Any]:
        values = self.config.model_dump(mode="json")
        values["training"].pop("weight_path")
        return {"config": values, "data": self.learner.fingerprint()}

    def _take_up(self, found: tuple[Checkpoint, dict[str, Any]]) -> None:
        path, content = found[0].path, found[0].content
        saved = content.get(EXTRA_KEY, {}).get(ENTRY, {}).get("run")
        if saved is None:
            raise CheckpointError(f"{path}: holds no fine-tuning run to go on with; start afresh without --resume")
        if saved["recipe"] != self.recipe:
            where = "data" if saved["recipe"]["config"] == self.recipe["config"] else "config"
            raise CheckpointError(
                f"{path}: belongs to a run with another {where}; restore it, or start afresh without --resume"
            )
        self.learner.head.load_state_dict(content[EXTRA_KEY][ENTRY]["head"])
        self.encoder.restore(content[EXTRA_KEY][ENTRY]["adapters"])
        self.average.model.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(content["opt_state"])
        for name in STATE:
            setattr(self, name, saved[name])
        self._log_offsets = found[1]["log_offsets"]

    def _prepare_folder(self) -> None:
        if self._log_offsets is not None:
            self.folder.settle()
            self.folder.cut_to(self._log_offsets)
            return
        self.folder.start_afresh()
        write_text(self.folder.config, yaml.safe_dump(self.config.resolved(), sort_keys=False))
        about = {"task": self.config.task, "classes": list(self.learner.classes), "simulated": self.learner.simulated}
        write_json(
            self.folder.manifest,
            {**provenance(self.device), "started": utc_now(), **about, **self.learner.about(), "recipe": self.recipe},
        )

    def _say_what_runs(self) -> None:
        head, encoder = (sum(p.numel() for p in self.trained[name].parameters()) for name in ("head", "encoder"))
        beside = f" and {encoder:,} of the encoder ({self.encoder.mode})" if encoder else ", encoder frozen"
        kind = " (simulated data)" if self.learner.simulated else ""
        reporter.info(
            f"fine-tuning for {self.config.task}{kind}: {len(self.learner.classes)} classes, {head:,} parameters of "
            f"the head{beside}, {self.config.training.epochs} epochs of {self.learner.steps} steps at most"
        )

    # ------------------------------------------------------------------ running

    def _run_epoch(self) -> bool:
        """Train for the rest of an epoch; True where somebody asked to stop."""
        steps = self.learner.steps
        bar = tqdm(total=steps, initial=self.step, desc=f"epoch {self.epoch + 1}", leave=False, disable=None)
        started = time.monotonic()
        while self.step < steps:
            self.loss_sum += self._one_step(self.epoch * steps + self.step)
            self.step += 1
            bar.update()
            if self.signals.received is not None:
                bar.close()
                return True
        bar.close()
        self._finish_epoch(time.monotonic() - started)
        return self.signals.received is not None

    def _one_step(self, number: int) -> float:
        share = self.schedule(number)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * share
        self.learner.head.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.config.training.seed, "dropout", number))
            loss = self.learner.loss(self.epoch, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained.parameters(), GRAD_CLIP)
        self.optimizer.step()
        self.average.update(torch.tensor(float(number), device=self.device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"training.learning_rate: the loss is {value} in epoch {self.epoch + 1}; give a smaller one"
            )
        return value

    def _finish_epoch(self, seconds: float) -> None:
        with self._averaged():
            score = self.learner.score()
            if score > self.best_score:
                self.best_score, self.best_epoch = score, self.epoch + 1
                # Before the checkpoint: a run that is killed in between makes the same file again.
                write_checkpoint(self.folder.best, self.encoder.base, epoch=self.epoch, best_train_loss=0.0,
                                 extra={ENTRY: self._entry()})  # fmt: skip
        rate = self.config.training.learning_rate * self.schedule(self.epoch * self.learner.steps)
        loss = self.loss_sum / self.learner.steps
        row = {"epoch": self.epoch + 1, "train_loss": loss, "val_score": score, "best_score": self.best_score,
               "avg_lr": rate}  # fmt: skip
        self.folder.append_metrics(row)
        self.folder.append_log({**row, "seconds": round(seconds, 2), "time": utc_now()})
        measure = SCORE_KEYS[self.learner.measure]
        reporter.info(f"epoch {row['epoch']:4d}  loss {loss:7.4f}  {measure} {score:6.1%} (best {self.best_score:.1%})")
        self.epoch, self.step, self.loss_sum = self.epoch + 1, 0, 0.0
        self._save()

    def _finish(self) -> None:
        """Score the best weights on the test part, where that is not done yet."""
        if self.folder.scores.exists():
            reporter.info(f"this run is finished (best score in epoch {self.best_epoch}); nothing to do")
            return
        found = self.folder.best
        self._load_best()
        figures, arrays = self.learner.test()
        if arrays:
            write_npz(self.folder.confusions, arrays)
        scores = {
            "task": self.config.task,
            "best_epoch": self.best_epoch,
            "val": {self.learner.measure: self.best_score},
            "test": figures,
            "simulated": self.learner.simulated,
        }
        save_figure(
            plot_curves(self.folder.metrics, SCORE_KEYS[self.learner.measure], self.learner.simulated),
            self.folder.curve,
        )
        write_json(self.folder.scores, scores)  # last: it says that the run is finished
        value = figures.get(self.learner.measure)
        said = "" if value is None else f"; {SCORE_KEYS[self.learner.measure]} of the test part {value:.1%}"
        if figures.get("low") is not None:
            said += f" ({figures['low']:.1%} to {figures['high']:.1%})"
        reporter.info(f"finished, best in epoch {self.best_epoch}: {found}{said}")

    # ------------------------------------------------------------------ weights

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within it, head and encoder have the averaged weights."""
        kept = _copied(self.trained)
        self.trained.load_state_dict(self.average.model.state_dict())
        self.trained["head"].eval()
        try:
            yield
        finally:
            self.trained.load_state_dict(kept)

    def _load_best(self) -> None:
        checkpoint = read_checkpoint(self.folder.best)
        entry = checkpoint.content[EXTRA_KEY][ENTRY]
        self.learner.head.load_state_dict(entry["head"])
        self.learner.head.eval()
        self.encoder.restore(entry["adapters"])
        if self.encoder.mode == "whole":
            self.encoder.base.load_state_dict(checkpoint.model_state)

    def _entry(self) -> dict[str, Any]:
        """What a checkpoint says beside the model's weights: everything that a map is made by."""
        section = self.config.encoder
        return {
            "task": self.config.task,
            "classes": list(self.learner.classes),
            "mode": section.mode,
            "rank": section.rank,
            "alpha": section.alpha,
            "head": _copied(self.learner.head),
            "adapters": {name: value.detach().cpu().clone() for name, value in self.encoder.state().items()},
            "about": self.learner.about(),
            "simulated": self.learner.simulated,
        }

    def _save(self) -> None:
        run = {name: getattr(self, name) for name in STATE}
        average = {name: value.cpu() for name, value in self.average.model.state_dict().items()}
        entry = {**self._entry(), "run": {**run, "recipe": self.recipe, "average": average}}
        self.folder.save(
            self.encoder.base,
            {"epoch": self.epoch, "log_offsets": self.folder.offsets()},
            epoch=self.epoch - 1,
            best_train_loss=0.0,
            opt_state=self.optimizer.state_dict(),
            extra={ENTRY: entry},
        )


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def finetune(config: FinetuningConfig, resume: bool, signals: StopSignals) -> int:
    """Hold the run's folder and run; returns the exit code."""
    with FinetuningFolder(config.training.weight_path).held():
        return Finetuning(config, resume, signals).run()
