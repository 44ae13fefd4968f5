"""A head that makes maps, learned from crops of labelled ground."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from configs.finetuning import PARTS, TEST, TRAIN, VAL, FinetuningConfig
from finetuning.decoder import HALO, HeadSizes, build_head
from finetuning.encoders import TrainedEncoder, grid_of
from finetuning.ground import Area, Crops, read_ground, turned
from finetuning.mapping import Seen, decoded, no_tokens, probabilities, token_map
from finetuning.scores import confusion_by_block, mean_iou, scored
from models.config import ModelConfig
from scenes.products.labelled import UNKNOWN
from transformation.transformer import ZScoreNormalize
from utils.data_config import DATASETS, BigEarthNetInfo
from utils.errors import ConfigError

IGNORE = -100
"""Label of a pixel that teaches nothing."""
FIRST_CROPS = 48
"""Crops that filters, means and spreads are taken from before training."""
RAREST = 1e-6
"""In place of a share of 0 before its logarithm."""


class SegmentationLearner:
    """See `finetuning.learner.Learner`.

    Of a frozen encoder the tokens of the whole ground are computed once, from overlapping windows; else those of each
    crop, which is then one window.

    Args:
        config: validated.
        encoder: on its device.
        device: of encoder and head.
        scratch: folder for what is not kept.
    """

    measure = "miou"

    def __init__(self, config: FinetuningConfig, encoder: TrainedEncoder, device: torch.device, scratch: Path) -> None:
        self.config, self.encoder, self.device = config, encoder, device
        training, model = config.training, encoder.model.config
        self.statistics = _statistics(config)
        statistics = DATASETS[self.statistics].STATISTICS
        self.normalize = ZScoreNormalize(statistics, fill_is_data=False)
        self.ground = read_ground(config.ground, model, statistics, scratch, training.seed)
        self.classes = self.ground.classes
        self.simulated = any(area.source.simulated for area in self.ground.areas)
        self.steps = training.steps
        self.crops = Crops(self.ground, self._crop_side(model), training.seed, training.rare_share)
        self.sizes = head_sizes(config, model, len(self.classes))
        self.maps = [self._token_map(area) for area in self.ground.areas]
        counts = self.ground.counts(TRAIN)
        share = torch.tensor(counts / counts.sum()).clamp_min(RAREST).log().float()
        self.prior = (training.prior_weight * share).to(device)[:, None, None]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            self.head = build_head(self.sizes).to(device).to(memory_format=torch.channels_last)  # faster on a CPU
        self.head.fit(self._first_crops(), training.seed)

    def loss(self, epoch: int, step: int) -> Tensor:
        """See `Learner`."""
        places = self.crops.draw(self.config.training.batch_size, epoch, step)
        images, valid, labels, symmetries = self._batch(places)
        if not self.sizes.tokens or self.encoder.frozen:
            cells = [turned(self._cells(place), int(s)) for place, s in zip(places, symmetries, strict=True)]
            tokens = torch.stack(cells).to(self.device)
        else:
            found, _ = self.encoder.tokens(images, self._metadata(places), valid, self._bands(places))
            tokens = grid_of(found, self.encoder.model.config.num_prefix)
        scores = self.head(images, tokens) + self.prior
        return F.cross_entropy(scores, labels, ignore_index=IGNORE)

    @torch.no_grad()
    def score(self) -> float:
        """Mean IoU of the validation squares, by tiles that hold some of them, without symmetries."""
        if self.sizes.tokens and not self.encoder.frozen:
            self.maps = [self._token_map(area) for area in self.ground.areas]
        count = len(self.classes)
        confusion = np.zeros((count, count), np.int64)
        for area, cells in zip(self.ground.areas, self.maps, strict=True):
            for rows, columns in _tiles(area, PARTS.index(VAL)):
                found = self._decoded(area, cells, rows, columns)
                known = (area.part[rows, columns] == PARTS.index(VAL)) & (area.labels[rows, columns] != UNKNOWN)
                truth = area.labels[rows, columns][known]
                confusion += confusion_by_block(truth, found[known], np.zeros(len(truth), int), count).sum(axis=0)
        return mean_iou(confusion)

    def test(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Figures of the test squares, by the map that prediction makes, and their confusions, (squares, K, K)."""
        confusions = self._test_confusions()
        return scored(confusions, self.classes, self.config.training.seed), {"confusions": confusions}

    def _test_confusions(self) -> np.ndarray:
        found = []
        for number, area in enumerate(self.ground.areas):
            made = probabilities(self.head, self.seen(area), self.rows(number), self.config.training.symmetries)
            classes = np.concatenate([_likeliest(stripe) for stripe in made])
            frame = area.frame
            inside = (
                slice(frame.above, frame.above + frame.grid.height),
                slice(frame.left, frame.left + frame.grid.width),
            )
            known = (area.part[inside] == PARTS.index(TEST)) & (area.labels[inside] != UNKNOWN)
            found.append(confusion_by_block(
                area.labels[inside][known], classes[known], area.block[inside][known], len(self.classes)
            ))  # fmt: skip
        return np.concatenate(found)

    def rows(self, number: int) -> Iterator[np.ndarray]:
        """The tokens of the block rows of an area."""
        area = self.ground.areas[number]
        if not self.sizes.tokens:
            return no_tokens(area.frame, self.sizes.width)
        cells = self.maps[number] if self.encoder.frozen else self._token_map(area)
        side = area.frame.window // area.frame.patch
        return (part.permute(1, 2, 0).float().numpy() for part in cells.split(side, dim=1))

    def seen(self, area: Area) -> Seen:
        """What the head sees of an area."""
        return Seen(area.reader, area.frame, self.normalize, area.source.metadata, area.source.bands)

    def fingerprint(self) -> str:
        """See `Learner`."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for area in self.ground.areas:
            for values in (area.numbers, area.labels, area.part):
                digest.update(values.tobytes())
        return digest.hexdigest()

    def about(self) -> dict[str, Any]:
        """See `Learner`."""
        ground = {part: self.ground.counts(part).tolist() for part in PARTS}
        missing = sorted({band for area in self.ground.areas for band in area.source.missing})
        return {
            "head": {**self.sizes._asdict(), "mixing": list(self.sizes.mixing)},
            "statistics": self.statistics,
            "stride": self.config.ground.stride,
            "symmetries": self.config.training.symmetries,
            "missing_bands": missing,
            "pixels": ground,
        }

    # ------------------------------------------------------------------ crops

    def _crop_side(self, model: ModelConfig) -> int:
        """Of a crop: as the config says, but within the smallest area, and one window where the encoder learns."""
        side = self.config.training.crop
        if side % model.patch_size:
            raise ConfigError(f"training.crop: {side} is no multiple of the model's patch, {model.patch_size}")
        if self.config.encoder.mode != "frozen":
            return model.img_size
        return min(side, *(min(area.labels.shape) for area in self.ground.areas))

    def _batch(self, places: np.ndarray) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
        """Turned images (B, C, s, s), where they can be seen, labels (B, s, s), and the symmetries (B,)."""
        cut = [self.crops.cut(place) for place in places]
        images, valid = self.normalize(torch.from_numpy(np.stack([numbers for numbers, _ in cut])).to(self.device))
        labels = torch.from_numpy(np.stack([labels for _, labels in cut]).astype(np.int64)).to(self.device)
        labels[labels == UNKNOWN] = IGNORE
        symmetries = places[:, 3]
        images, valid, labels = (
            torch.stack([turned(one, int(s)) for one, s in zip(values, symmetries, strict=True)])
            for values in (images, valid, labels)
        )
        return images, valid, labels, symmetries

    def _metadata(self, places: np.ndarray) -> Tensor:
        """(B, F, 2) time and place of the crops."""
        found = []
        for number, top, left, _ in places:
            area = self.ground.areas[number]
            at = np.array([top]), np.array([left])
            found.append(area.source.metadata.encode(area.frame, *at, self.encoder.model.config))
        return torch.cat(found).to(self.device)

    def _bands(self, places: np.ndarray) -> Tensor | None:
        """(B, C) bool, bands that the crops have; None: all."""
        given = [self.ground.areas[number].source.bands for number in places[:, 0]]
        if all(bands is None for bands in given):
            return None
        every = torch.ones(self.sizes.bands, dtype=torch.bool)
        return torch.stack([every if bands is None else bands for bands in given]).to(self.device)

    def _cells(self, place: np.ndarray) -> Tensor:
        """(D, s / p, s / p) tokens of a crop."""
        patch = self.sizes.patch
        _, rows, columns = self.crops.slices(place, patch)
        return self.maps[int(place[0])][:, rows, columns].float()

    def _first_crops(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        places = self.crops.draw(FIRST_CROPS, "first")
        places[:, 3] = 0
        images, valid, _, _ = self._batch(places)
        return [
            (image, seen, self._cells(place).to(self.device))
            for image, seen, place in zip(images, valid, places, strict=True)
            if seen.any()
        ]

    # ------------------------------------------------------------------ maps

    def _token_map(self, area: Area) -> Tensor:
        if not self.sizes.tokens:
            return torch.zeros(self.sizes.width, *area.frame.cells, dtype=torch.float16)
        return token_map(self.encoder.for_use(), self.seen(area))

    def _decoded(self, area: Area, cells: Tensor, rows: slice, columns: slice) -> np.ndarray:
        """(h, w) class found in a tile."""
        patch, (height, width) = self.sizes.patch, area.labels.shape
        around = [slice(max(0, part.start - HALO), min(size, part.stop + HALO))
                  for part, size in ((rows, height), (columns, width))]  # fmt: skip
        numbers = torch.from_numpy(np.ascontiguousarray(area.numbers[:, around[0], around[1]]))
        images, _ = self.normalize(numbers[None].to(self.device))
        part = [slice(one.start // patch, one.stop // patch) for one in around]
        tokens = cells[:, part[0], part[1]].float()[None].to(self.device)
        found = decoded(self.head, images, tokens)[0].argmax(dim=0).cpu().numpy()
        inner = [
            slice(one.start - out.start, one.stop - out.start) for one, out in zip((rows, columns), around, strict=True)
        ]
        return found[inner[0], inner[1]]


def head_sizes(config: FinetuningConfig, model: ModelConfig, classes: int) -> HeadSizes:
    """The sizes of the head that a config asks for. Raises ConfigError where it reaches farther than a tile's halo."""
    head = config.head
    linear = head.kind == "linear"
    sizes = HeadSizes(
        bands=model.in_channels,
        width=model.embed_dim,
        classes=classes,
        patch=model.patch_size,
        kind=head.kind,
        tokens=head.tokens or linear,
        pixels=head.pixels and not linear,
        token_numbers=head.token_numbers,
        filters=head.filters,
        hidden=head.hidden,
        mixing=() if linear else tuple(head.mixing),
        dropout=head.dropout,
    )
    if sizes.reach > HALO:
        raise ConfigError(
            f"head.mixing: the decoder reaches {sizes.reach} pixels, at most {HALO}; give fewer or smaller ones"
        )
    return sizes


def _statistics(config: FinetuningConfig) -> str:
    name = config.data.statistics
    if name in ("auto", "train"):
        return BigEarthNetInfo.NAME
    return name


def _tiles(area: Area, part: int) -> Iterator[tuple[slice, slice]]:
    """The bounds of the labelled pixels in every square of a part."""
    wanted = (area.part == part) & (area.labels != UNKNOWN)
    rows, columns = np.nonzero(wanted)
    numbers, square = np.unique(area.block[rows, columns], return_inverse=True)
    for at in range(len(numbers)):
        yield _bounds(rows[square == at], area.frame.patch), _bounds(columns[square == at], area.frame.patch)


def _bounds(numbers: np.ndarray, patch: int) -> slice:
    """The smallest range of whole patches with all numbers."""
    return slice(int(numbers.min()) // patch * patch, -(-(int(numbers.max()) + 1) // patch) * patch)


def _likeliest(stripe: np.ndarray) -> np.ndarray:
    """(K, h, w) probabilities to the class of the largest, `UNKNOWN` where there are none."""
    hidden = np.isnan(stripe).any(axis=0)
    found = np.where(hidden, 0, stripe.argmax(axis=0)).astype(np.uint8)
    found[hidden] = UNKNOWN
    return found
