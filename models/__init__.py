"""The masked autoencoder and its parts."""

from typing import TYPE_CHECKING

from utils.entry_points import lazy_names

if TYPE_CHECKING:
    from models.config import ModelConfig
    from models.moe_mae import MOEMAE, build_model

__all__ = ["MOEMAE", "ModelConfig", "build_model"]

__getattr__ = lazy_names(__name__, "models.moe_mae:MOEMAE", "models.config:ModelConfig", "models.moe_mae:build_model")
