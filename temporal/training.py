"""Pretraining of the temporal module: dates are left out, and foretold from those that are left.

A step is a function of weights, seed and its number. The run's folder is that of `training.run_folder`, with its
promises: a killed run goes on to the same bits.
"""

import signal
from typing import Any

import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from configs.temporal import TemporalConfigFile
from datasets.loader import shuffled
from models.moe import balance_of, expert_importance, expert_load
from models.noise import LayerNoise
from models.temporal import TemporalConfig, TemporalModule
from models.temporal_weights import read_temporal_checkpoint, write_temporal, write_temporal_checkpoint
from scheduler.schedulers import WarmupCosineLR
from temporal.series import Series
from training.nan_guard import diverged
from training.recipe import require_same_recipe
from training.run_folder import CheckpointForm, RunFolder
from training.run_log import utc_now
from training.stopping import StopSignals
from utils.errors import CheckpointError
from utils.files import write_json, write_text
from utils.provenance import provenance
from utils.randomness import derive_seed, generator
from utils.reporting import reporter

SIZE = "temporal"
"""In the names of a run's files."""
FORM = CheckpointForm(write_temporal_checkpoint, read_temporal_checkpoint, ("epoch", "train_loss", "lr"), ".npz")
PARTS = ("train", "val")


class TemporalPretraining:
    """One run: built without touching a file, and begun by `run`.

    Args:
        config: validated.
        train, val: series of pretraining and validation.
        encoder: SHA-256 of the weights that the vectors are of.
        resume: go on from the newest checkpoint that verifies, if there is one.
        signals: whether somebody asked to stop.
    """

    def __init__(
        self,
        config: TemporalConfigFile,
        train: Series,
        val: Series,
        encoder: str,
        resume: bool,
        signals: StopSignals,
    ) -> None:
        training = config.training
        self.config, self.train, self.val, self.signals = config, train, val, signals
        self.folder = run_folder(config)
        self.encoder, self.resume = encoder, resume
        self.fingerprint = {"train": train.fingerprint, "val": val.fingerprint}
        self.recipe = {name: section for name, section in config.model_dump().items() if name != "places"}
        del self.recipe["training"]["weight_path"], self.recipe["training"]["save_every_n_epochs"]
        self.steps = -(-len(train.growth) // training.batch_size)
        total = self.steps * training.epochs
        self.schedule = WarmupCosineLR(training.learning_rate, int(training.warmup_fraction * total), total)
        self.step, self.sums, self.best = 0, [0.0, 0.0], float("inf")
        found = self.folder.newest() if resume else None
        self.module = self._first_module() if found is None else found[0]["module"]
        self.optimizer = torch.optim.AdamW(
            self.module.parameters(), training.learning_rate, weight_decay=training.weight_decay, fused=True
        )
        self.offsets: dict[str, int] | None = None
        if found is not None:
            self._take_up(*found)
        self.values = {name: torch.from_numpy(getattr(self, name).vectors) for name in PARTS}
        self.times = {name: torch.from_numpy(getattr(self, name).times.copy()) for name in PARTS}

    def _first_module(self) -> TemporalModule:
        vectors = torch.from_numpy(self.train.vectors)
        pool, sizes = self.config.encoder.pool, self.config.model.model_dump()
        about = TemporalConfig(width=vectors.shape[-1], pool=pool, encoder=self.encoder, **sizes)
        torch.manual_seed(derive_seed(self.config.training.seed, "first weights"))
        module = TemporalModule(about)
        module.mean.copy_(vectors.mean(dim=(0, 1)))
        module.spread.copy_(vectors.std(dim=(0, 1)).clamp(min=1e-6))
        return module

    def _take_up(self, content: dict[str, Any], record: dict[str, Any]) -> None:
        """Go on with a saved run; refuses another recipe or other data."""
        require_same_recipe(self.folder.checkpoint, record["recipe"], self.recipe)
        if record["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                f"{self.folder.checkpoint}: was trained on other places than {self.config.places.folder} holds now "
                "(fingerprints differ); restore them, or start afresh without --resume"
            )
        self.optimizer.load_state_dict(content["opt_state"])
        self.step, self.sums, self.best = content["step"], content["sums"], content["best"]
        self.offsets = record["log_offsets"]

    # ------------------------------------------------------------------ running

    def run(self) -> int:
        """Train to the end, or until SIGTERM or SIGINT, which save and stop; returns the exit code."""
        self._prepare_folder()
        total = self.steps * self.config.training.epochs
        count = sum(parameter.numel() for parameter in self.module.parameters())
        reporter.info(
            f"pretraining a temporal module ({count:,} parameters) on {len(self.train.growth):,} simulated series, "
            f"{self.config.training.epochs} epochs of {self.steps} steps"
        )
        if self.step >= total:
            reporter.info(f"this run is finished ({total} steps); nothing to do")
            return 0
        self.signals.at_a_step = True
        with tqdm(total=total, initial=self.step, desc="pretraining", leave=False, disable=None) as bar:
            while self.step < total:
                self._one_step()
                bar.update()
                if self.step % self.steps == 0:
                    self._finish_epoch(self.step // self.steps)
                if self.signals.received is not None and self.step < total:
                    self._save()
                    reporter.info(f"stopped by a signal after step {self.step}; saved. Go on with --resume")
                    return self.signals.exit_code(self.signals.received or signal.SIGTERM)
        reporter.info(f"finished; weights in {self.folder.last}, best in {self.folder.best}")
        return 0

    def _one_step(self) -> None:
        training, epoch, batch = self.config.training, self.step // self.steps, self.step % self.steps
        order = shuffled(len(self.train.growth), training.seed, epoch)
        chosen = order[batch * training.batch_size : (batch + 1) * training.batch_size]
        random = generator(training.seed, "dates left out", self.step)
        loss = self._loss("train", chosen, random)
        self.module.train()
        rate = self.schedule(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        (loss[0] + loss[1]).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), training.grad_clip)
        if not (loss[0].isfinite() and norm.isfinite()):
            raise diverged("loss", float(loss[0]), self.step)
        self.optimizer.step()
        self.step += 1
        self.sums = [self.sums[0] + float(loss[0].detach()) * len(chosen), self.sums[1] + len(chosen)]

    def _loss(self, part: str, chosen: list[int], random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Squared error of what was left out, in variances, and the balance of the experts."""
        vectors, times = self.values[part][chosen], self.times[part][chosen]
        present = some_dates(len(times), times.shape[1], random)
        model = self.config.model
        tokens = len(chosen) * (2 * times.shape[1])
        noise = [LayerNoise(torch.randn(tokens, model.experts, generator=random)) for _ in range(model.depth)]
        told, found = self.module.foretell(vectors, times, present, times, noise if model.experts > 1 else None)
        error = (told - self.module.standardised(vectors)).square().mean(dim=-1)
        left_out = (~present).float()
        balance = [balance_of(expert_importance(one), expert_load(one)) for one in found.routing if one is not None]
        return (error * left_out).sum() / left_out.sum(), torch.stack(balance).sum() if balance else error.sum() * 0

    @torch.no_grad()
    def _validate(self) -> float:
        """The same error on other places, with dates left out that are the same every time."""
        self.module.eval()
        random = generator(self.config.training.seed, "dates left out of validation")
        size, count, total = self.config.training.batch_size, len(self.val.growth), 0.0
        for first in range(0, count, size):
            chosen = list(range(first, min(first + size, count)))
            total += float(self._loss("val", chosen, random)[0]) * len(chosen)
        return total / count

    # ------------------------------------------------------------------ writing

    def _prepare_folder(self) -> None:
        if self.offsets is not None:
            self.folder.settle()
            self.folder.cut_to(self.offsets)
            return
        if self.resume:
            reporter.info(f"nothing to resume in {self.folder.folder}; starting fresh")
        self.folder.start_afresh()
        write_text(self.folder.config, yaml.safe_dump(self.config.model_dump(), sort_keys=False))
        about = {**provenance(torch.device("cpu")), "started": utc_now(), "simulated": True, "recipe": self.recipe,
                 "fingerprint": self.fingerprint, "encoder": self.encoder}  # fmt: skip
        write_json(self.folder.manifest, about)

    def _finish_epoch(self, epoch: int) -> None:
        """Validate, log, and write what the epoch earned."""
        row = {"epoch": epoch, "train_loss": self.sums[0] / self.sums[1], "lr": self.schedule(self.step - 1)}
        row["val_loss"] = row["val_m_loss"] = self._validate()
        self.folder.append_metrics(row)
        self.folder.append_log({**row, "simulated": True, "time": utc_now()})
        reporter.info(f"epoch {epoch:4d}  loss {row['train_loss']:6.4f}  val {row['val_loss']:6.4f}")
        if row["val_loss"] < self.best:
            self.best = row["val_loss"]
            write_temporal(self.folder.best, self.module)
        last = epoch == self.config.training.epochs
        if last:
            write_temporal(self.folder.last, self.module)
        self.sums = [0.0, 0.0]
        if last or epoch % self.config.training.save_every_n_epochs == 0:
            self._save()

    def _save(self) -> None:
        record = {"step": self.step, "fingerprint": self.fingerprint, "recipe": self.recipe,
                  "log_offsets": self.folder.offsets()}  # fmt: skip
        self.folder.save(self.module, record, opt_state=self.optimizer.state_dict(), step=self.step, sums=self.sums,
                         best=self.best)  # fmt: skip


def run_folder(config: TemporalConfigFile) -> RunFolder:
    """The folder of a run."""
    return RunFolder(config.training.weight_path, SIZE, with_validation=True, form=FORM)


def some_dates(count: int, dates: int, random: torch.Generator) -> Tensor:
    """Which dates are seen, (count, dates) bool: from one to all but one, every number as often as any other."""
    kept = torch.randint(1, dates, (count, 1), generator=random)
    rank = torch.rand(count, dates, generator=random).argsort(dim=1).argsort(dim=1)
    return rank < kept
