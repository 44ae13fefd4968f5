"""The numbers that define a model: the three published sizes and what may be changed in them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from models.masking import MASKING_KEYS, MaskingConfig
from models.pooling import DEFAULT_POOL, POOLINGS
from utils.metadata import FIELDS, PUBLISHED_FIELDS
from utils.sensors import MSI, OLI, SENSORS

LOAD_LOSSES = (None, "shazeer", "published")
MISSING_METADATA = ("pair", "token")
MISSING_BANDS = ("mean", "rescale", "token")
POSITION_STARTS = ("random", "sincos")
SENSOR_SETS = ((OLI.name,), (OLI.name, MSI.name))
"""Values of fields of `ModelConfig`."""


@dataclass(frozen=True)
class ModelConfig:
    """Every number that shapes the weights or the forward pass. Sizes are built by `ModelConfig.of_size`.

    Attributes:
        experts: experts per encoder block; 1 makes a block a plain SwiGLU.
        meta_fields: names in `utils.metadata.FIELDS`, one metadata token each, in sequence order before CLS.
        dfirsth, dlasth: expert width of the first and the last encoder block; linear in between, rounded down.
        k: experts chosen per token in the encoder.
        position_std: of the position embeddings when they are initialised. With the published 0.02 they start as a
            few percent of a token; with 0.5 a short run learns sooner where tokens are (docs/guide/pretrain.md).
        position_start: what the position embeddings are before training: "random", as published, or "sincos", the sines
            and cosines of row and column, so that neighbours are alike from the start; also of root mean square
            `position_std`.
        published_behaviour: load loss, metadata and fill pixels as the released weights were trained with.
        load_loss: "shazeer" or "published" (thresholds swapped); None follows `published_behaviour`.
        missing_metadata: what stands for metadata that are not there: "pair", the projection of (0, 0), or "token",
            a learned token.
        missing_bands: what stands for bands that a sensor does not have: "mean", z-scores of 0, the dataset's mean, as
            published; "rescale", nothing: their part of the patch projection is left out and the rest grows to make up
            for it; "token", the same and a learned vector of each band that is missing, added to the patch tokens.
        sensors: whose patches the model takes. Each has its own patch projection and prediction head
            (`models.second_sensor`); `in_channels` are the first's bands.
        pool: the pooling that the weights are read out with where nothing else is asked for.
        read_depth: encoder blocks after which tokens are read out, for embeddings and for pretraining's target
            `readout`; None, or as many as there are: all. The decoder and the other targets take the last block's.
        decoder_*: the decoder, the same in all published sizes.
    """

    size: str
    embed_dim: int
    depth: int
    num_heads: int
    num_groups: int
    dfirsth: int
    dlasth: int
    experts: tuple[int, ...]
    k: int = 2
    img_size: int = 40
    patch_size: int = 4
    in_channels: int = 7
    meta_fields: tuple[str, ...] = PUBLISHED_FIELDS
    dropout: float = 0.1
    position_std: float = 0.02
    published_behaviour: bool = False
    load_loss: str | None = None
    missing_metadata: str = "pair"
    missing_bands: str = "mean"
    sensors: tuple[str, ...] = SENSOR_SETS[0]
    pool: str = DEFAULT_POOL
    position_start: str = "random"
    read_depth: int | None = None
    decoder_dim: int = 108
    decoder_depth: int = 2
    decoder_heads: int = 6
    decoder_groups: int = 3
    decoder_width: int = 54
    decoder_experts: int = 3
    decoder_k: int = 2

    def __post_init__(self) -> None:
        if self.read_depth == self.depth:  # one way to say it, for fingerprints and comparisons
            object.__setattr__(self, "read_depth", None)

    @classmethod
    def of_size(cls, size: str = "S", **overrides: Any) -> "ModelConfig":
        """A published size, with any field replaced by an override that is not None.

        `experts` may be one number for all blocks or a sequence with one number a block.

        Raises:
            ValueError: naming every impossible value.
        """
        config = cls._unchecked(size, **overrides)
        if problems := config.problems():
            raise ValueError("; ".join(f"{key}: {text}" for key, text in problems))
        return config

    @classmethod
    def problems_of(cls, size: str, masking: MaskingConfig | None = None, **overrides: Any) -> list[tuple[str, str]]:
        """What `of_size` would refuse, and what is impossible about masking its images, as (field, sentence)."""
        config = cls._unchecked(size, **overrides)
        problems = config.problems()
        if masking is not None and min(config.img_size, config.patch_size) > 0:
            problems += masking.problems(config.num_patches)
        return problems

    @classmethod
    def _unchecked(cls, size: str, experts: Any = None, **overrides: Any) -> "ModelConfig":
        if size not in SIZES:
            raise ValueError(f"size: unknown size {size!r}; choose one of {', '.join(SIZES)}")
        given = {key: value for key, value in overrides.items() if value is not None}
        given |= {key: tuple(given[key]) for key in ("meta_fields", "sensors") if key in given}
        values = {**SIZES[size], **given}
        return cls(size=size, experts=_experts_per_block(experts, values["depth"]), **values)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The inverse of `to_dict`. Raises ValueError or TypeError for anything that is not one."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown model fields {unknown}")
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        config = cls(**given)
        if problems := config.problems():
            raise ValueError("; ".join(f"{key}: {text}" for key, text in problems))
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, for JSON and for checkpoints. What the paper does goes without saying where the key came
        later, so that what was made before there were others keeps its fingerprint."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        if self.meta_fields == PUBLISHED_FIELDS:
            del values["meta_fields"]
        later = {"pool": DEFAULT_POOL, "position_start": "random", "missing_bands": "mean", "sensors": [OLI.name],
                 "read_depth": None}  # fmt: skip
        for key, silent in later.items():
            if values[key] == silent:
                del values[key]
        return values

    def replace(self, **changes: Any) -> "ModelConfig":
        """The same with other values; `experts` may be one number for all blocks."""
        if isinstance(changes.get("experts"), int):
            changes["experts"] = _experts_per_block(changes["experts"], changes.get("depth", self.depth))
        return replace(self, **changes)

    def problems(self) -> list[tuple[str, str]]:
        """Every impossible combination as (field, sentence); empty when the model can be built."""
        whole = ("embed_dim", "depth", "num_heads", "num_groups", "dfirsth", "dlasth", "k", "img_size", "patch_size",
                 "in_channels", "decoder_dim", "decoder_heads", "decoder_groups", "decoder_width", "decoder_experts",
                 "decoder_k")  # fmt: skip
        if senseless := [(name, f"{getattr(self, name)} is below 1") for name in whole if getattr(self, name) < 1]:
            return senseless
        if self.decoder_depth < 0:  # 0: the linear layer alone decodes
            return [("decoder_depth", f"{self.decoder_depth} is below 0")]
        found = [
            (name, f"{getattr(self, name)!r} is none of {', '.join(map(str, known))}")
            for name, known in _CHOICES.items()
            if getattr(self, name) not in known
        ]
        if problem := _fields_problem(self.meta_fields):
            found.append(("meta_fields", problem))
        if self.sensors not in SENSOR_SETS:
            known = " or ".join(f"[{', '.join(names)}]" for names in SENSOR_SETS)
            found.append(("sensors", f"{', '.join(self.sensors) or 'none'} are not known together; use {known}"))
        elif len(self.sensors) > 1 and self.in_channels != len(OLI.bands):
            found.append(
                ("sensors", f"a second sensor needs a first of {len(OLI.bands)} bands, not {self.in_channels}")
            )
        if self.img_size % self.patch_size:
            found.append(("img_size", f"{self.img_size} is not a multiple of patch_size {self.patch_size}"))
        if self.embed_dim % self.num_heads:
            found.append(("embed_dim", f"{self.embed_dim} is not a multiple of num_heads {self.num_heads}"))
        if self.num_heads % self.num_groups:
            found.append(("num_heads", f"{self.num_heads} is not a multiple of num_groups {self.num_groups}"))
        if len(self.experts) != self.depth:
            found.append(("experts", f"{len(self.experts)} numbers given for {self.depth} blocks"))
        if min(self.experts, default=1) < 1:
            found.append(("experts", f"{min(self.experts)} is below 1"))
        if self.read_depth is not None and not 1 <= self.read_depth <= self.depth:
            found.append(("read_depth", f"{self.read_depth} is not from 1 to the model's {self.depth} blocks"))
        if not 0.0 <= self.dropout < 1.0:
            found.append(("dropout", f"{self.dropout} is not from 0 to below 1"))
        if self.decoder_dim % self.decoder_heads:
            found.append(("decoder_dim", f"{self.decoder_dim} is not a multiple of decoder_heads {self.decoder_heads}"))
        if self.decoder_heads % self.decoder_groups:
            told = f"{self.decoder_heads} is not a multiple of decoder_groups {self.decoder_groups}"
            found.append(("decoder_heads", told))
        if self.decoder_k >= self.decoder_experts > 1:
            told = f"{self.decoder_k} must be below the number of decoder_experts, {self.decoder_experts}"
            found.append(("decoder_k", told))
        fewest = min((count for count in self.experts if count > 1), default=self.k + 1)
        if self.k >= fewest:
            found.append(("k", f"{self.k} must be below the number of experts, {fewest}"))
        return found

    @property
    def blocks_read(self) -> int:
        """Encoder blocks that embeddings need."""
        return self.depth if self.read_depth is None else self.read_depth

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.img_size // self.patch_size

    @property
    def num_patches(self) -> int:
        return self.grid**2

    @property
    def cls_index(self) -> int:
        """Place of the CLS token: after the metadata tokens."""
        return len(self.meta_fields)

    @property
    def num_prefix(self) -> int:
        """Tokens before the patches: metadata and CLS."""
        return len(self.meta_fields) + 1

    @property
    def num_tokens(self) -> int:
        """Metadata, CLS and all patches."""
        return self.num_prefix + self.num_patches

    @property
    def channels(self) -> tuple[int, ...]:
        """Bands of a batch, of every sensor: their number says which it is."""
        return (self.in_channels, *(len(SENSORS[name].bands) for name in self.sensors[1:]))

    @property
    def patch_values(self) -> int:
        """Numbers in a patch: C * p * p."""
        return self.in_channels * self.patch_size**2

    @property
    def published_load(self) -> bool:
        """Whether the load loss is the published code's."""
        return self.published_behaviour if self.load_loss is None else self.load_loss == "published"

    @property
    def expert_widths(self) -> tuple[int, ...]:
        """d_i = int((L - 1 - i) / (L - 1) * (first - last)) + last for block i of L."""
        last = max(self.depth - 1, 1)
        span = self.dfirsth - self.dlasth
        return tuple(int((self.depth - 1 - i) / last * span) + self.dlasth for i in range(self.depth))


_CHOICES = {
    "load_loss": LOAD_LOSSES,
    "missing_metadata": MISSING_METADATA,
    "missing_bands": MISSING_BANDS,
    "pool": POOLINGS,
    "position_start": POSITION_STARTS,
}


def to_record(config: ModelConfig, masking: MaskingConfig) -> dict[str, Any]:
    """What files say of a model, as plain values: its numbers and how the images were masked in its training."""
    return {**config.to_dict(), **masking.to_dict()}


def from_record(values: Mapping[str, Any]) -> tuple[ModelConfig, MaskingConfig]:
    """The inverse of `to_record`. Raises ValueError or TypeError for anything that is not one."""
    config = ModelConfig.from_dict({key: value for key, value in values.items() if key not in MASKING_KEYS})
    masking = MaskingConfig.from_dict(values)
    if problems := masking.problems(config.num_patches):
        raise ValueError("; ".join(f"{key}: {text}" for key, text in problems))
    return config, masking


def _fields_problem(names: tuple[str, ...]) -> str | None:
    """What is wrong with `meta_fields`, as a sentence."""
    if unknown := [name for name in names if name not in FIELDS]:
        return f"unknown field {unknown[0]!r}; choose among {', '.join(FIELDS)}"
    twice = [name for name in FIELDS if names.count(name) > 1]
    return f"{twice[0]} is named twice" if twice else None


def _experts_per_block(experts: int | list[int] | tuple[int, ...] | None, depth: int) -> tuple[int, ...]:
    """One number for all blocks, one a block, or by default 3, 4 and 5 by thirds of the depth."""
    if experts is None:
        return tuple(3 + min(2, 3 * i // depth) for i in range(depth))
    return (experts,) * depth if isinstance(experts, int) else tuple(experts)


SIZES: dict[str, dict[str, int]] = {
    "S": {"embed_dim": 144, "depth": 15, "num_heads": 8, "num_groups": 4, "dfirsth": 144, "dlasth": 72},
    "XS": {"embed_dim": 128, "depth": 12, "num_heads": 8, "num_groups": 4, "dfirsth": 96, "dlasth": 32},
    "XXS": {"embed_dim": 108, "depth": 9, "num_heads": 6, "num_groups": 3, "dfirsth": 81, "dlasth": 27},
}
"""The published sizes: 2.54, 1.38 and 0.82 million parameters with the decoder."""
