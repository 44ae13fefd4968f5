"""The second sensor of a model: its own patch projection and prediction head beside the first's, all else shared.

A batch is of one sensor, and the number of its bands says of which: OLI's seven or MSI's twelve.
"""

from torch import Tensor, nn

from models.config import ModelConfig
from utils.sensors import LIKE_OLI, MSI

PROJECTION, HEAD = "encoder.patch_proj", "decoder_pred"
"""Of the first sensor; the second's names end in `_msi`."""


def second_projection(config: ModelConfig) -> nn.Conv2d | None:
    """Of the second sensor's patches, as the first's; None where the model has no second sensor."""
    if MSI.name not in config.sensors:
        return None
    side = config.patch_size
    return nn.Conv2d(len(MSI.bands), config.embed_dim, kernel_size=side, stride=side)


def second_head(config: ModelConfig) -> nn.Linear | None:
    """From the decoder's tokens to the pixels of the second sensor's patches; None as above."""
    if MSI.name not in config.sensors:
        return None
    return nn.Linear(config.decoder_dim, len(MSI.bands) * config.patch_size**2)


def first_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the second sensor's weights begin with: the first's for the bands that see the same, 0 for the others.

    So nothing is drawn, and before any training MSI's patches are seen as OLI's would be.

    Args:
        state: of a model, with the first sensor's weights.
    """
    kernel, head, bias = (state[name] for name in (f"{PROJECTION}.weight", f"{HEAD}.weight", f"{HEAD}.bias"))
    bands, places = kernel.shape[1], list(LIKE_OLI)
    wide = kernel.new_zeros(len(kernel), len(MSI.bands), *kernel.shape[2:])
    wide[:, places] = kernel
    rows, biases = (
        values.new_zeros(len(MSI.bands), *values.unflatten(0, (bands, -1)).shape[1:]) for values in (head, bias)
    )
    rows[places], biases[places] = head.unflatten(0, (bands, -1)), bias.unflatten(0, (bands, -1))
    return {
        f"{PROJECTION}_msi.weight": wide,
        f"{PROJECTION}_msi.bias": state[f"{PROJECTION}.bias"].clone(),
        f"{HEAD}_msi.weight": rows.flatten(0, 1),
        f"{HEAD}_msi.bias": biases.flatten(),
    }
