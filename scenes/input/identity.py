"""What makes two runs on a scene the same: its files and every setting that changes a number."""

import hashlib
import json
from typing import Any

from scenes.input.product import Scene

FORMAT = 1
"""Counted up when the same settings give other numbers."""


def settings_fingerprint(scene: Scene, identity: dict[str, Any]) -> str:
    """Hex SHA-256 of settings and of the name, size and time of change of every file of the scene."""
    files = {}
    for band in (*scene.bands, *((scene.qa,) if scene.qa else ())):
        about = band.path.stat()
        files[band.path.name] = [about.st_size, about.st_mtime_ns]
    order = [(band.path.name, band.band) for band in scene.bands]
    values = {"format": FORMAT, "files": files, "order": order, "scale": scene.scale, **identity}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
