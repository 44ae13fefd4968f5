"""The one name of all this: `from moemae import MOEMAE`, and the command `moemae`.

In the repository it stands beside the packages; `pip install .` puts them below it (`moemae.models`, …), so that an
installation has no top-level `datasets`, `models` or `utils`.
"""

from typing import TYPE_CHECKING

from utils.entry_points import lazy_names

if TYPE_CHECKING:
    from models.config import ModelConfig
    from models.moe_mae import MOEMAE, build_model
    from models.pretrained import load_published

__all__ = ["MOEMAE", "ModelConfig", "build_model", "load_published"]

__getattr__ = lazy_names(
    __name__,
    "models.moe_mae:MOEMAE",
    "models.config:ModelConfig",
    "models.moe_mae:build_model",
    "models.pretrained:load_published",
)
