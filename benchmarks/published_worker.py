"""The process in which the published code runs: started by `benchmarks.published`, beside nothing of this project.

    python -P published_worker.py FOLDER INPUT.npz THREADS SIZE

Reads a line, "train" or "embed", does that once and answers with a line, until its input ends. Its modules have the
names of this project's, so it imports from FOLDER and from installed packages alone.
"""

import os
import sys
from importlib import import_module

import numpy as np
import torch

FIELDS = ("week", "hour", "lat", "lon")
ALPHA, BETA = 0.1, 0.5
LEARNING_RATE, WEIGHT_DECAY, EPOCHS, STEPS, WARM_UP = 3e-4, 0.05, 500, 2107, 0.05


def main(folder: str, data: str, threads: str, size: str) -> None:
    """Build the published model and serve."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the published code prints is no answer
    sys.path.insert(0, folder)
    os.chdir(folder)
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    model = import_module("models.moe_mae")  # the published one

    arrays = np.load(data)
    images = torch.from_numpy(arrays["images"])
    meta = [torch.from_numpy(arrays[name]) for name in FIELDS]
    batch = (images, torch.zeros(len(images)), *meta)
    encoder = model.build_model(size=size, img_size=images.shape[-1], patch_size=4, in_chans=images.shape[1])
    works = {"train": lambda: _trainer(model.MOEMAE(encoder)), "embed": lambda: _embedder(encoder)}
    built = {}
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        name = line.strip()
        if name not in built:
            built[name] = works[name]()
        built[name](batch)
        print("done", file=answers, flush=True)


def _trainer(model):
    pretraining, scheduler = import_module("pretrain_mae"), import_module("scheduler.schedulers")
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = scheduler.WarmupCosineLR(optimizer, EPOCHS * STEPS, LEARNING_RATE, int(WARM_UP * EPOCHS) * STEPS)
    scaler = torch.amp.GradScaler(device="cpu", enabled=False)
    return lambda batch: pretraining.train_epoch(
        model, [batch], optimizer, scaler, ALPHA, BETA, "cpu", 0, schedule, EPOCHS
    )


def _embedder(encoder):
    published = import_module("embed.compute_embed")
    return lambda batch: published.compute_geomoemae_embeddings(encoder, [batch], "cpu", use_autocast=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
