"""What is said, and written down, of a scene that is not OLI's: its sensor, the bands it lacks, and what follows."""

from typing import Any

from models.config import ModelConfig
from scenes.input.product import Scene
from scenes.products.land_cover import Probe
from utils.sensors import OLI

GUIDE = "docs/guide/sensors.md"


def seen_otherwise(scene: Scene) -> dict[str, Any]:
    """For records: nothing of a scene with all of OLI's bands, so that what is made of it stays as it was."""
    said: dict[str, Any] = {}
    if scene.sensor.missing:
        said = {"sensor": scene.sensor.name, "missing_bands": list(scene.sensor.missing)}
    return said | ({"adjusted_to_oli": scene.adjusted} if scene.adjusted else {})


def band_notes(scene: Scene, config: ModelConfig) -> list[str]:
    """What is missing to the model, one line each."""
    if not scene.sensor.missing:
        return []
    name = scene.sensor.title.partition(",")[0]
    notes = [f"{name}; missing to the model: {_listed(scene.sensor.missing)}"]
    if scene.adjusted:
        notes.append(f"reflectance is turned into OLI's by Roy et al. 2016 ({scene.adjusted.upper()})")
    if config.missing_bands == "mean":
        notes.append(
            f"these weights were not trained with missing bands, which count as the dataset's mean; what that costs, "
            f"and weights that were: {GUIDE}"
        )
    return notes


def probe_notes(scene: Scene, probe: Probe | None) -> list[str]:
    """Whether a probe was fitted on other bands than the scene has."""
    if probe is None or probe.missing_bands is None or set(probe.missing_bands) == set(scene.sensor.missing):
        return []
    theirs = f"without {_listed(probe.missing_bands)}" if probe.missing_bands else f"of all {len(OLI.bands)} bands"
    mine = f"lacks {_listed(scene.sensor.missing)}" if scene.sensor.missing else "has all"
    return [f"{probe.path.name} was fitted on embeddings {theirs}, this scene {mine}: see {GUIDE} for what that costs"]


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
