"""Packing and loading: from files one by one, from files in batches, from a pack."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import torch

from benchmarks.goals import goal
from benchmarks.ours import OurTraining, forget_compiled
from benchmarks.reference_work import BATCH, reference_loader
from benchmarks.report import Row, timed_row
from benchmarks.setting import SAMPLE, SAMPLE_SPLIT, Setting
from benchmarks.timing import Timing, alternate
from datasets.loader import BatchLoader, build_dataset, shuffled
from datasets.pack.dataset import make_recipe
from datasets.pack.source import PackSource
from datasets.pack.writer import write_pack
from datasets.patches import Batch, PatchDataset, read_split
from utils.data_config import IMAGE_SIZE, BigEarthNetInfo
from utils.threads import torch_threads

FILES, QUICK_FILES = 4000, 200
"""Files packed: 90 MB of pixels, more than a cache holds."""

REFERENCE_SHARE = 10
"""The reference reads one in so many of the files, since it takes so much longer; its time is given for all."""

PACK_WORKERS = 2
SPLIT = "train.csv"
CPU = torch.device("cpu")

BYTES_A_PATCH = 7 * IMAGE_SIZE**2 * (2 + 4)
"""Moved at least: the stored uint16 read once, the normalised float32 written once."""


def pack_rows(setting: Setting) -> list[Row]:
    """Pack files of the sample, copied under other names, against reading them one at a time."""
    with tempfile.TemporaryDirectory() as folder:
        files = QUICK_FILES if setting.quick else FILES
        root, ids = copy_sample(Path(folder) / "bigearthnet-l", files)
        number = count()

        def pack() -> None:
            make_pack(root, Path(folder) / f"pack {next(number)}")

        timings = alternate(
            {"pack": pack, "reference": lambda: read_as_published(root, ids[::REFERENCE_SHARE])},
            max(1, setting.rounds // 4),
            CPU,
        )
    reference = Timing(tuple(seconds * REFERENCE_SHARE for seconds in timings["reference"].rounds))
    return [
        timed_row(
            f"packing {files:,} files, {PACK_WORKERS} readers",
            timings["pack"],
            reference,
            unit="files/s",
            items=files,
            goal=goal("pack", "cpu", setting.quick),
            note=f"checksums included; the files are in memory already; the reference reads one in {REFERENCE_SHARE}",
        )
    ]


def load_rows(setting: Setting) -> list[Row]:
    """Normalised batches of 128 in this process, on one core: files and pack, each against the reference."""
    with tempfile.TemporaryDirectory() as folder, torch_threads(1):
        files = QUICK_FILES if setting.quick else FILES
        root, ids = copy_sample(Path(folder) / "bigearthnet-l", files)
        pack = make_pack(root, Path(folder) / "pack")
        part = ids[::REFERENCE_SHARE]
        (root / "part.csv").write_text("\n".join(part) + "\n")
        from_files, from_pack = open_dataset(root, "part.csv"), open_dataset(pack, SPLIT)
        timings = alternate(
            {
                "files": lambda: read_all(from_files),
                "pack": lambda: read_all(from_pack),
                "reference": lambda: read_as_published(root, part),
            },
            max(1, setting.rounds // 2),
            CPU,
        )
        resident = resident_row(setting, pack)
    reference = timings["reference"]
    per_pack = Timing(tuple(seconds * REFERENCE_SHARE for seconds in reference.rounds))
    note = "one core, shuffled, batches of 128, normalised; the files are in memory already"
    return [
        timed_row("loading from files", timings["files"], reference, unit="patches/s", items=len(part), note=note),
        timed_row(
            "loading from a pack",
            timings["pack"],
            per_pack,
            unit="patches/s",
            items=files,
            uses=("bandwidth", BYTES_A_PATCH * files),
            goal=goal("load pack", "cpu", setting.quick),
            note=note + "; limit: memory bandwidth",
        ),
        resident,
    ]


def resident_row(setting: Setting, pack: Path) -> Row:
    """A training step on batches gathered on the GPU against the same step on one batch that is there already."""
    work = f"training step with the pack resident on the GPU, batch {BATCH} (reference: always the same batch)"
    if setting.kind != "cuda":
        return Row(work, "ms", note="needs a GPU")
    dataset = open_dataset(pack, SPLIT)
    loader = BatchLoader(dataset, BATCH, num_workers=0, device=setting.device, resident=True)

    def endless() -> Iterator[Batch]:
        for epoch in count():
            yield from loader.training_batches(shuffled(len(dataset), setting.seed, epoch), padded=True)

    forget_compiled()
    batches = endless()
    loaded, same = (
        OurTraining(setting.config, next(batches), compiled=True, seed=setting.seed) for _ in ("loaded", "same")
    )
    timings = alternate({"loaded": lambda: loaded.on(next(batches)), "same": same}, setting.rounds, setting.device)
    target = goal("load resident", setting.kind, setting.quick)
    return timed_row(work, timings["loaded"], timings["same"], unit="ms", goal=target)


def copy_sample(root: Path, files: int) -> tuple[Path, list[str]]:
    """The sample's patches over and over under other names; returns the folder and the ids."""
    sources = read_split(SAMPLE / SAMPLE_SPLIT)
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    ids = []
    for index in range(files):
        source, name = sources[index % len(sources)], f"S2A_MSIL2A_20170613T101031_{index // 100}_{index % 100}"
        shutil.copyfile(SAMPLE / "images" / f"{source}.tif", root / "images" / f"{name}.tif")
        label = f"{source}_labels_metadata.json"
        if (SAMPLE / "labels" / label).exists():
            shutil.copyfile(SAMPLE / "labels" / label, root / "labels" / f"{name}_labels_metadata.json")
        ids.append(name)
    (root / SPLIT).write_text("\n".join(ids) + "\n")
    return root, ids


def make_pack(root: Path, out: Path, splits: Sequence[str] = (SPLIT,)) -> Path:
    """Pack the patches of some split files of a folder."""
    recipe = make_recipe(BigEarthNetInfo.NAME, None, IMAGE_SIZE, published_behaviour=False)
    write_pack(
        PackSource(root, [str(root / split) for split in splits], recipe), out, skip_bad=False, num_workers=PACK_WORKERS
    )
    return out


def open_dataset(path: Path, split: str) -> PatchDataset:
    """Files or a pack, as the scripts open them."""
    return build_dataset(BigEarthNetInfo.NAME, str(path), split, image_size=IMAGE_SIZE)


def read_all(dataset: PatchDataset) -> int:
    """Every patch once, shuffled; returns how many."""
    loader = BatchLoader(dataset, BATCH, num_workers=0, device=CPU)
    return sum(len(batch.ids) for batch in loader.batches(shuffled(len(dataset), seed=0, epoch=0)))


def read_as_published(root: Path, ids: list[str]) -> int:
    """Every patch once, one file at a time."""
    return sum(len(batch["id"]) for batch in reference_loader(root / "images", ids))
