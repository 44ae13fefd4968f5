"""The masked autoencoder and its parts."""

from models.config import ModelConfig
from models.moe_mae import MOEMAE, build_model

__all__ = ["MOEMAE", "ModelConfig", "build_model"]
