"""The published code at work, in a process of its own: what `benchmarks.published` starts as a file.

Its folder has packages of the same names as this project's (`models`, `utils`), so nothing of this project is imported
here. It reads one JSON line a request from standard input and answers each with one on standard output.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

ALPHA, BETA = 0.1, 0.5
"""Weights of the visible patches and of the balance in the published loss."""
LEARNING_RATE, WEIGHT_DECAY, GRAD_CLIP = 3e-4, 0.05, 1.0
META = ("meta_week", "meta_hour", "meta_lat", "meta_lon")


class Worker:
    """A model of the published code, and one batch.

    Args:
        folder: of the published code.
        asked: "work" ("train" or "embed"), "batch" (an .npz of images and meta), "size", "device", "seed".
    """

    def __init__(self, folder: Path, asked: dict[str, Any]) -> None:
        sys.path[0] = str(folder)
        os.chdir(folder)
        published = importlib.import_module("models.moe_mae")

        torch.manual_seed(asked["seed"])
        self.device = torch.device(asked["device"])
        self.mixed = self.device.type == "cuda"
        with np.load(asked["batch"]) as batch:
            self.images = torch.from_numpy(batch["images"])
            self.meta = {name: torch.from_numpy(batch["meta"][:, at].copy()) for at, name in enumerate(META)}
        side, bands = self.images.shape[-1], self.images.shape[1]
        encoder = published.build_model(size=asked["size"], img_size=side, patch_size=asked["patch"], in_chans=bands)
        self.patch = asked["patch"]
        if asked["work"] == "embed":
            self.model = encoder.to(self.device).eval()
            self.call = self.embed
            return
        self.model = published.MOEMAE(encoder).to(self.device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.mixed)
        self.call = self.step

    def step(self) -> float:
        """A training step from a batch on the host, with the losses read by the host after it; returns the loss."""
        images = self.images.to(self.device)
        meta = {name: values.to(self.device) for name, values in self.meta.items()}
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, enabled=self.mixed):
            predicted, mask, _, balance = self.model(images, **meta)
            target = F.unfold(images, kernel_size=self.patch, stride=self.patch).transpose(1, 2)
            errors = (predicted - target) ** 2
            masked = (errors * mask.unsqueeze(-1)).sum() / mask.sum()
            visible = (errors * (1 - mask).unsqueeze(-1)).sum() / (1 - mask).sum()
            loss = masked + ALPHA * visible + BETA * balance
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the published code's loss is {loss.item()}")
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRAD_CLIP)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        losses = [value.item() for value in (loss, masked, visible, balance)]
        return losses[0]

    @torch.inference_mode()
    def embed(self) -> list[int]:
        """All tokens of the batch as an array on the host; returns its shape."""
        meta = {name: values.to(self.device) for name, values in self.meta.items()}
        with torch.autocast(self.device.type, enabled=self.mixed):
            made = self.model(self.images.to(self.device), **meta)
        tokens = made[-1] if isinstance(made, list | tuple) else made
        return list(tokens.float().cpu().numpy().shape)


def main(arguments: list[str]) -> int:
    """Answer requests until standard input ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what the published code prints is no answer
    worker = Worker(Path(arguments[0]), asked := json.loads(arguments[1]))
    if asked["threads"]:
        torch.set_num_threads(asked["threads"])
    print(json.dumps({"parameters": sum(one.numel() for one in worker.model.parameters())}), file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(worker.call()), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
