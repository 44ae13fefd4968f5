"""The one name of all this: `from moemae import MOEMAE`, and the command `moemae`.

In the repository it stands beside the packages; `pip install .` puts them below it (`moemae.models`, …), so that an
installation has no top-level `datasets`, `models` or `utils`.
"""

from models import MOEMAE, ModelConfig, build_model
from models.pretrained import load_published

__all__ = ["MOEMAE", "ModelConfig", "build_model", "load_published"]
