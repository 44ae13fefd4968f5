"""Published results as plain data, shown next to one's own rows, never mixed with them.

BigEarthNet-Landsat: micro mAP on the test split; EuroSAT-Landsat: overall accuracy on the test split; all in per cent.
"kNN-5" and "linear probe" are Landsat-Bench's protocols (`eval.probing.protocols`). None: not reported.
"""

from typing import NamedTuple

LANDSAT_BENCH = "Landsat-Bench, arXiv:2506.08780"
PAPER = "Albughdadi 2025, arXiv:2509.10919"
NOTEBOOK = "notebook in the published code of arXiv:2509.10919"


class PublishedRow(NamedTuple):
    """A model in a published table."""

    model: str
    parameters: str
    """In millions, as text."""
    eurosat_knn: float | None
    eurosat_probe: float | None
    bigearthnet_knn: float | None
    bigearthnet_probe: float | None
    source: str


PUBLISHED = (
    PublishedRow("MoE-MAE S, all 105 tokens", "2.4", None, None, None, 76.7, PAPER),
    PublishedRow("MoE-MAE S, CLS token", "2.4", None, 84.2, None, None, PAPER),
    PublishedRow("MoE-MAE S, mean of tokens", "2.4", None, 74.30, None, 73.10, NOTEBOOK),
    PublishedRow("image statistics (28 numbers)", "0", 79.0, 74.1, None, None, LANDSAT_BENCH),
    PublishedRow("ImageNet ResNet-18", "11", 76.2, 81.0, 57.5, 70.2, LANDSAT_BENCH),
    PublishedRow("ImageNet ResNet-50", "24", 76.4, 79.0, 58.3, 71.9, LANDSAT_BENCH),
    PublishedRow("ImageNet ViT-S", "22", 79.4, 86.4, 61.9, 74.9, LANDSAT_BENCH),
    PublishedRow("SSL4EO-L ResNet-18 SimCLR", "11", 69.8, 68.5, 51.4, 60.3, LANDSAT_BENCH),
    PublishedRow("SSL4EO-L ResNet-18 MoCo", "11", 79.0, 82.8, 61.4, 74.0, LANDSAT_BENCH),
    PublishedRow("SSL4EO-L ResNet-50 SimCLR", "24", 72.6, 73.5, 53.9, 63.1, LANDSAT_BENCH),
    PublishedRow("SSL4EO-L ResNet-50 MoCo", "24", 75.1, 82.5, 59.3, 76.1, LANDSAT_BENCH),
    PublishedRow("SSL4EO-L ViT-S SimCLR", "22", 83.4, 77.6, 67.0, 68.3, LANDSAT_BENCH),
    PublishedRow("SSL4EO-L ViT-S MoCo", "22", 81.6, 88.8, 64.5, 77.5, LANDSAT_BENCH),
    PublishedRow("DOFA-B", "111", 80.0, 87.3, None, None, LANDSAT_BENCH),
    PublishedRow("DOFA-L", "337", 84.5, 89.8, None, None, LANDSAT_BENCH),
    PublishedRow("Satlas Swin-B", "88", 84.1, 89.6, None, None, LANDSAT_BENCH),
    PublishedRow("Prithvi 100M", "100", 86.4, 89.4, None, None, LANDSAT_BENCH),
    PublishedRow("Prithvi 2.0-300M", "300", 87.3, 91.1, None, None, LANDSAT_BENCH),
    PublishedRow("Prithvi 2.0-600M", "600", 88.7, 91.9, None, None, LANDSAT_BENCH),
)


class Schedule(NamedTuple):
    """How much a model was pretrained on."""

    patches: int
    epochs: int
    batch_size: int
    source: str

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return -(-self.patches // self.batch_size) * self.epochs


PAPER_SCHEDULE = Schedule(269_695, 500, 128, PAPER)
"""The train split of BigEarthNet-Landsat."""
