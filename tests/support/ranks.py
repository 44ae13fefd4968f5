"""Several processes of one run, as `torchrun` starts them but without its imports.

They are forked from a server that has imported torch, with the environment that `torchrun` sets. What they do stands
here, where the server finds it by name.
"""

import multiprocessing
import multiprocessing.connection
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from conftest import ROOT
from matplotlib.figure import Figure
from plain_figures import drawn_once
from tqdm import tqdm
from warm_python import server

LIMIT_SECONDS = 300.0
"""A run that takes longer hangs, also where it compiles on a busy machine."""

NOTICE_SECONDS = 8.0
"""When one has failed, the others have so long to notice it by themselves before they get SIGTERM."""

GRACE_SECONDS = 4.0
"""They get SIGKILL so much later; of `torchrun` they have 30 s."""

SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP}


class Ended(NamedTuple):
    """A process that has ended."""

    code: int
    said: str
    """On stdout."""
    complained: str
    """On stderr."""


def run_ranks(folder: Path, work: Callable[..., None], *arguments: object, count: int = 2) -> list[Ended]:
    """Let `count` processes do `work(*arguments)` together; each in a folder `machine<rank>`, if there is one."""
    context = server()
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # `torchrun` keeps it, too
    ranks = [
        context.Process(target=_rank, args=(rank, count, store.port, folder, work, arguments)) for rank in range(count)
    ]
    for process in ranks:
        process.start()
    deadline = time.monotonic() + LIMIT_SECONDS
    failed_at = None
    terminated = False
    while any(process.is_alive() for process in ranks) and time.monotonic() < deadline:
        if failed_at is None and any(process.exitcode for process in ranks):
            failed_at = time.monotonic()
        if not terminated and failed_at is not None and time.monotonic() > failed_at + NOTICE_SECONDS:
            terminated, deadline = True, time.monotonic() + GRACE_SECONDS
            for process in ranks:
                process.terminate()
        multiprocessing.connection.wait([process.sentinel for process in ranks if process.is_alive()], timeout=0.1)
    for process in ranks:
        process.kill()
        process.join()
    return [Ended(process.exitcode, *_said(folder, rank)) for rank, process in enumerate(ranks)]


def _said(folder: Path, rank: int) -> tuple[str, str]:
    return tuple((folder / f"{stream}{rank}").read_text() for stream in ("stdout", "stderr"))


def _rank(rank: int, count: int, port: int, folder: Path, work: Callable, arguments: tuple) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / f"{name}{rank}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1")
    os.environ.update(MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True")
    multiprocessing.set_start_method("fork", force=True)  # as in a process of its own
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is the system's, and left behind by a process that is killed
    sys.path[:0] = [str(ROOT)]
    Figure.savefig = drawn_once(Figure.savefig)
    os.chdir(folder / f"machine{rank}" if (folder / f"machine{rank}").is_dir() else ROOT)
    work(*arguments)


# --------------------------------------------------------------------------- what they do


def script(name: str, *arguments: object) -> None:
    """Run a script as `python name arguments` does."""
    sys.argv = [name, *map(str, arguments)]
    runpy.run_path(str(ROOT / name), run_name="__main__")


def script_reading_files(name: str, *arguments: object) -> None:
    """The same with data that are never held in memory, as where they are too large for it."""
    from datasets.patches import PatchDataset

    PatchDataset.hold_in_memory = lambda *_: False
    script(name, *arguments)


def training_with_a_signal(number: str, rank: int, step: int, *arguments: object) -> None:
    """Pretrain; one process gets a signal when it begins a certain step. The others of a stopped one wait 5 s."""
    import utils.processes
    from training.step import TrainStep

    if number == "SIGSTOP":
        utils.processes.TIMEOUT = timedelta(seconds=5)
    real = TrainStep.__call__

    def signalled(train_step: TrainStep, batch: object, at: int, lr: float) -> object:
        if at == step and int(os.environ["RANK"]) == rank:
            os.kill(os.getpid(), SIGNALS[number])
        return real(train_step, batch, at, lr)

    TrainStep.__call__ = signalled
    script("pretrain_mae.py", *arguments)


def reduction_that_ends_late(printed: str) -> None:
    """The thread that sums is still busy with a callback when the work of this process is done."""
    from utils.processes import joined_processes

    for name in [name for name in sys.modules if name.startswith("torch.distributed.nn")]:
        del sys.modules[name]  # as in a new process
    ended = []

    def callback(_: object) -> None:
        time.sleep(1.0)
        ended.append(printed)

    with joined_processes() as processes:
        import torch.distributed.nn  # as the first step of an optimizer does

        if not processes.main:
            time.sleep(0.3)
        work = dist.all_reduce(torch.zeros(1), async_op=True)
        work.get_future().then(callback)
        time.sleep(0.6)
        del work
    print(*ended)


def one_step(target: Path, batch_size: int, balance: float, compiled: bool = False) -> None:
    """One step on this process's rows of a batch with fewer patches than a full one; the main process saves it."""
    from utils.processes import joined_processes

    with joined_processes() as processes:
        found = gradients_of_a_step(batch_size, balance, processes, compiled)
        if processes.main:
            torch.save(found, target)


def gradients_of_a_step(
    batch_size: int, balance: float, processes: object, compiled: bool = False
) -> dict[str, torch.Tensor]:
    """Gradients, before clipping, of one step on `batch_size` - 1 patches, two of them with fill; and its losses.

    Compiled means traced into one graph, forward and backward, which is then run as it is: no code is generated.
    """
    from tiny import TINY_MODEL

    from datasets.loader import Part
    from datasets.patches import Batch
    from models import build_model
    from models.losses import LossWeights
    from training.step import StepOptions, TrainStep
    from utils.compilation import Compilation
    from utils.randomness import generator

    numbers = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
    model = build_model("XXS", seed=3, **numbers).train()
    rng = generator(0, "distributed test")
    valid = torch.ones(batch_size, 40, 40, dtype=torch.bool)
    valid[0, :24], valid[2], valid[-1] = False, False, False  # partly fill, no valid pixel, and a row that pads
    images = torch.randn(batch_size, 7, 40, 40, generator=rng) * valid.unsqueeze(1)
    meta = torch.randn(batch_size, 4, 2, generator=rng)
    rows = Part(processes.rank, processes.count).of(batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    options = StepOptions(5, LossWeights(0.4, balance), 1e9, 0.2, None, batch_size)
    said: list[str] = []
    compilation = Compilation(compiled, said.append)
    torch.compile, real = partial(torch.compile, backend="aot_eager", fullgraph=True), torch.compile
    try:
        step = TrainStep(model, optimizer, options, torch.amp.GradScaler("cpu", enabled=False), processes, compilation)
    finally:
        torch.compile = real
    result = step(Batch(images[rows], meta[rows], valid[rows], None, []), 7, 0.0)
    assert not said, said
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {**found, "losses": torch.stack(result.losses), "chosen": result.chosen, "norm": result.grad_norm}
