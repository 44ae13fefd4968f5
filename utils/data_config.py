"""The datasets: of each its sensor, statistics, classes, splits, reader and archive, in one table, with sources."""

from typing import ClassVar, Literal, NamedTuple

from utils.sensors import MSI, OLI, Sensor

REFLECTANCE_SCALE, REFLECTANCE_OFFSET = OLI.scale, OLI.offset
"""Digital numbers of Collection 2, Level 2, to reflectance: DN * scale + offset."""

IMAGE_SIZE = 40
"""Side of the square patch the model sees, in pixels (arXiv:2509.10919)."""


SIMULATED_MARK = "# Simulated Landsat patches"
"""First line of the README in every folder of simulated patches."""


Crop = Literal["center", "resize"]
"""How a file's pixels become a square patch: its middle at full resolution, or all of it scaled."""


class BandStatistics(NamedTuple):
    """Mean and standard deviation per band, in Collection-2 digital numbers (DN)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class HubArchive(NamedTuple):
    """Where a dataset is published on the Hugging Face hub."""

    repo: str
    archive: str
    split_file: str
    """Name of a split's file, with the split for `{}`."""
    patch_files: tuple[int, ...]
    """About how many bytes each file of a patch has."""


class DatasetInfo:
    """What is fixed about a dataset: a subclass each. Light to import: the reader is named, not imported."""

    NAME: ClassVar[str]
    """In configurations."""
    TITLE: ClassVar[str]
    """In reports."""
    SIMULATOR: ClassVar[str | None] = None
    """What `python -m datasets.simulated --kind` calls its layout; None where the simulator has none."""
    IDS_TELL_AREA: ClassVar[bool] = False
    """Whether a patch's id says in which area it lies."""
    READER: ClassVar[str]
    """Module and class that read its files."""
    FOLDER: ClassVar[str]
    """The folder in its archive."""
    SENSOR: ClassVar[Sensor]
    FILE_BANDS: ClassVar[tuple[str, ...]]
    """Bands in the files; those that are not the sensor's are dropped."""
    STATISTICS: ClassVar[BandStatistics]
    CROP: ClassVar[Crop]
    """How patches reach the model's size where a config does not say."""
    SPLIT_SIZES: ClassVar[dict[str, int]]
    CLASSES: ClassVar[tuple[str, ...]]
    LABEL_NAMES: ClassVar[tuple[str, ...]]
    """As they stand in the dataset's own files, and so in a pack."""
    LABEL_FILES: ClassVar[bool]
    """Whether labels are in files of their own, which may be missing."""
    HUB: ClassVar[HubArchive]


class BigEarthNetInfo(DatasetInfo):
    """BigEarthNet-Landsat (Landsat-Bench, arXiv:2506.08780)."""

    NAME = "bigearthnet_ls"
    TITLE = "BigEarthNet-Landsat"
    SIMULATOR = "bigearthnet"
    IDS_TELL_AREA = True
    READER = "datasets.bigearthnet:BigEarthNetDatasetLS"
    FOLDER = "bigearthnet-l"
    SENSOR = OLI
    FILE_BANDS = OLI.bands
    LABEL_FILES = True
    CROP = "center"
    HUB = HubArchive(
        "isaaccorley/bigearthnet-l", "bigearthnet-l.tar.gz", "bigearthnet-{}.csv", patch_files=(27_000, 1_200)
    )
    STATISTICS = BandStatistics(
        mean=(9405.194, 9649.677, 10425.686, 10444.589, 16067.627, 12699.184, 10596.475),
        std=(6016.344, 6095.472, 5839.462, 6068.493, 6271.440, 4256.046, 3130.776),
    )
    """Of the train split, fill pixels included (as published by Landsat-Bench)."""

    SPLIT_SIZES = {"train": 269_695, "val": 123_723, "test": 125_866}

    CORINE = (
        "Continuous urban fabric",
        "Discontinuous urban fabric",
        "Industrial or commercial units",
        "Road and rail networks and associated land",
        "Port areas",
        "Airports",
        "Mineral extraction sites",
        "Dump sites",
        "Construction sites",
        "Green urban areas",
        "Sport and leisure facilities",
        "Non-irrigated arable land",
        "Permanently irrigated land",
        "Rice fields",
        "Vineyards",
        "Fruit trees and berry plantations",
        "Olive groves",
        "Pastures",
        "Annual crops associated with permanent crops",
        "Complex cultivation patterns",
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
        "Agro-forestry areas",
        "Broad-leaved forest",
        "Coniferous forest",
        "Mixed forest",
        "Natural grassland",
        "Moors and heathland",
        "Sclerophyllous vegetation",
        "Transitional woodland/shrub",
        "Beaches, dunes, sands",
        "Bare rock",
        "Sparsely vegetated areas",
        "Burnt areas",
        "Inland marshes",
        "Peatbogs",
        "Salt marshes",
        "Salines",
        "Intertidal flats",
        "Water courses",
        "Water bodies",
        "Coastal lagoons",
        "Estuaries",
        "Sea and ocean",
    )
    """The 43 CORINE level-3 names used in the label files, in BigEarthNet's order."""
    LABEL_NAMES = CORINE

    CLASSES = (
        "Urban fabric",
        "Industrial or commercial units",
        "Arable land",
        "Permanent crops",
        "Pastures",
        "Complex cultivation patterns",
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
        "Agro-forestry areas",
        "Broad-leaved forest",
        "Coniferous forest",
        "Mixed forest",
        "Natural grassland and sparsely vegetated areas",
        "Moors, heathland and sclerophyllous vegetation",
        "Transitional woodland, shrub",
        "Beaches, dunes, sands",
        "Inland wetlands",
        "Coastal wetlands",
        "Inland waters",
        "Marine waters",
    )
    """The 19 classes that Landsat-Bench scores."""

    # Which CORINE indices make up each of the 19 classes; the indices not named (3-10, 30, 32, 37) are dropped.
    _CLASS_MEMBERS = (
        (0, 1), (2,), (11, 12, 13), (14, 15, 16, 18), (17,), (19,), (20,), (21,), (22,), (23,), (24,), (25, 31),
        (26, 27), (28,), (29,), (33, 34), (35, 36), (38, 39), (40, 41, 42),
    )  # fmt: skip
    CORINE_TO_CLASS = {member: index for index, members in enumerate(_CLASS_MEMBERS) for member in members}
    """CORINE index (0-42) to class index (0-18); dropped CORINE classes have no entry."""


class EuroSATInfo(DatasetInfo):
    """EuroSAT-Landsat (Landsat-Bench, arXiv:2506.08780)."""

    NAME = "eurosat_ls"
    TITLE = "EuroSAT-Landsat"
    SIMULATOR = "eurosat"
    READER = "datasets.eurosat:EuroSATDatasetLS"
    FOLDER = "eurosat-l"
    LABEL_FILES = False
    CROP = "resize"
    HUB = HubArchive("isaaccorley/eurosat-l", "eurosat-l.zip", "eurosat-{}.txt", patch_files=(8_300,))
    SENSOR = OLI
    STATISTICS = BandStatistics(
        mean=(8515.32, 8829.60, 9795.92, 9891.66, 15499.88, 13146.12, 11004.21),
        std=(3938.76, 4057.72, 4205.96, 4434.42, 6150.64, 4923.02, 4044.07),
    )
    SPLIT_SIZES = {"train": 16_200, "val": 5_400, "test": 5_400}
    FILE_BANDS = (*OLI.bands, "ST_B10")
    """Bands in the files; the surface temperature is dropped."""

    CLASSES = (
        "AnnualCrop",
        "Forest",
        "HerbaceousVegetation",
        "Highway",
        "Industrial",
        "Pasture",
        "PermanentCrop",
        "Residential",
        "River",
        "SeaLake",
    )
    LABEL_NAMES = CLASSES


class SimulatedMSIInfo(BigEarthNetInfo):
    """What `python -m datasets.simulated --kind bigearthnet --sensor msi` writes; no published dataset is read so."""

    NAME = "simulated_msi"
    TITLE = "simulated Sentinel-2 patches"
    SIMULATOR = None
    READER = "datasets.simulated_msi:SimulatedMSIDataset"
    SENSOR = MSI
    FILE_BANDS = MSI.bands
    STATISTICS = BandStatistics(
        mean=(1764.7, 1827.0, 2019.7, 2039.7, 2333.1, 3015.3, 3312.1, 3430.3, 3506.9, 3508.8, 2776.7, 2175.9),
        std=(1503.2, 1519.7, 1448.2, 1500.2, 1444.5, 1467.3, 1537.9, 1568.9, 1593.7, 1601.1, 1232.3, 985.1),
    )
    """Of the middle 40 x 40 pixels of 8,000 simulated patches (seed 100), fill pixels left out."""


_ROWS: tuple[type[DatasetInfo], ...] = (BigEarthNetInfo, EuroSATInfo)

DATASETS = {info.NAME: info for info in _ROWS}
"""Dataset name in a config to what is fixed about it: those of Landsat, which packs, scenes and exports know."""

OTHER_SENSORS: dict[str, type[DatasetInfo]] = {SimulatedMSIInfo.NAME: SimulatedMSIInfo}
"""Those of a second sensor: for pretraining and for embeddings, with weights that have it (`model.sensors`)."""


def dataset_info(name: str) -> type[DatasetInfo]:
    """What is fixed about a dataset of either table."""
    return OTHER_SENSORS.get(name) or DATASETS[name]
