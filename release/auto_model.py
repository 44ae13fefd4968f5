"""The model for `transformers`: `AutoModel.from_pretrained(folder, trust_remote_code=True)`.

A folder that `export.py` writes carries this file as `modeling_moemae.py`, and beside it those modules that the model
is made of (`release/model_code.py`). Nothing here imports this module, which needs the package transformers.
"""

import math
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel  # pyright: ignore[reportMissingImports]
from transformers.modeling_outputs import BaseModelOutputWithPooling  # pyright: ignore[reportMissingImports]

from models.config import ModelConfig, from_record, to_record
from models.inference.tensor_input import encoder_input
from models.masking import MaskingConfig
from models.moe_mae import MOEMAE
from models.pooling import pool_tokens
from models.weights_folder import MODEL_TYPE
from utils.data_config import DATASETS, BigEarthNetInfo


class MoEMAEConfig(PretrainedConfig):
    """`config.json` of the folder.

    Args:
        model: the model's numbers, as `models.config.to_record` gives them; None: the published size S.
        output: what the pooled output is: `{"pool": name}`; None: as the weights name it.
        statistics: mean and spread that pixels are normalised with: `{"name": dataset}`.
    """

    model_type = MODEL_TYPE

    def __init__(
        self,
        model: dict[str, Any] | None = None,
        output: dict[str, Any] | None = None,
        statistics: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        self.model = model or to_record(ModelConfig.of_size("S"), MaskingConfig())
        self.output = output or {"pool": from_record(self.model)[0].pool}
        self.statistics = statistics or {"name": BigEarthNetInfo.NAME}
        super().__init__(**others)


class MoEMAEModel(PreTrainedModel):
    """The encoder behind `AutoModel`; `moemae` is the model itself, with `embed` and the decoder."""

    config_class = MoEMAEConfig
    base_model_prefix = "moemae"
    main_input_name = "pixels"

    def __init__(self, config: MoEMAEConfig) -> None:
        super().__init__(config)
        self.moemae = MOEMAE(*from_record(config.model))
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        """Weights that a folder lacks stay as the model starts."""

    def forward(self, pixels: Tensor, metadata: Tensor | None = None, **_: Any) -> BaseModelOutputWithPooling:
        """Tokens and embeddings of patches.

        Args:
            pixels: (B, 7, S, S) Landsat 8 or 9 Collection-2 Level-2 digital numbers, 0 for fill.
            metadata: (B, F) columns of the fields in `config.json`, in plain units; NaN or None: not known.

        Returns:
            `last_hidden_state` (B, 1 + F + N, D), tokens of the last block after the norm: metadata, CLS, patches;
            `pooler_output` (B, W), the embedding that `embed` gives, NaN for a patch of nothing but fill.
        """
        model, numbers = self.moemae, DATASETS[self.config.statistics["name"]].STATISTICS
        mean, std = (torch.tensor(row, device=pixels.device).view(-1, 1, 1) for row in (numbers.mean, numbers.std))
        if metadata is None:
            shape = (len(pixels), len(model.config.meta_fields))
            metadata = torch.full(shape, math.nan, device=pixels.device)
        images, meta, visible = encoder_input(pixels, metadata, mean, std, model.config)
        encoded = model.encode(images.to(self.dtype), meta.to(self.dtype), visible=visible)
        pooled = pool_tokens(encoded.pre_norm, self.config.output["pool"], encoded.num_prefix, visible)
        if visible is not None:
            pooled = torch.where(visible.any(dim=1, keepdim=True), pooled, math.nan)
        return BaseModelOutputWithPooling(last_hidden_state=encoded.tokens, pooler_output=pooled)

    def embed(self, pixels: Any, **options: Any) -> Any:
        """Embeddings of numpy, torch or xarray patches with time and place: see `MOEMAE.embed`."""
        options = {"pool": self.config.output["pool"], "statistics": self.config.statistics["name"], **options}
        return self.moemae.embed(pixels, **options)
