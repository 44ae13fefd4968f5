"""What the page needs of others: onnxruntime-web and geotiff.js, from npm's packages, at pinned versions.

They are fetched when a page is exported, through the user's npm and its registry, and are no part of this repository.
Every file is compared with its checksum, wherever it comes from.
"""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError, describe_os_error
from utils.files import sha256


class Package(NamedTuple):
    """One package of npm."""

    name: str
    version: str
    license: str
    integrity: str
    """Of its archive, as npm states it."""
    files: dict[str, str]
    """Path inside the package to the SHA-256 of the file."""

    @property
    def wanted(self) -> str:
        return f"{self.name}@{self.version}"


PACKAGES = (
    Package(
        "onnxruntime-web",
        "1.30.0",
        "MIT",
        "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        {
            "dist/ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
            "dist/ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
        },
    ),
    Package(
        "geotiff",
        "3.0.5",
        "MIT",
        "sha512-OWcL9S9+yDZ6iAlXMt32T1iwUApJM8UiD47xbm6ZP1h33d10fqkPs14EG/ttT5EnefpZSx3G15iDFC5FxUNUwA==",
        {"dist-browser/geotiff.js": "8cfc01ffc945904766d8fb89f19da7afb799e342834454f5592fbcf0bcfe2db5"},
    ),
)
_BY_HAND = (
    f"or give --web-runtime DIR with both packages in it (elsewhere: npm install --prefix DIR "
    f"{' '.join(package.wanted for package in PACKAGES)})"
)
PATIENCE = 600
"""Seconds for one archive."""


def place_runtime(target: Path, given: Path | None) -> None:
    """Put the files of all packages into a folder.

    Args:
        target: the folder, which is there.
        given: a folder that has them, as `npm install --prefix` leaves it, or of an exported page; None fetches them.

    Raises:
        UserError: one line that says what to do, where they cannot be had or are not those that are pinned.
    """
    for package in PACKAGES:
        if given is not None:
            _take(package, _folder_of(package, given), target)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            _take(package, _fetch(package, Path(scratch)), target)


def _folder_of(package: Package, given: Path) -> Path:
    """Where a package lies in a folder that a user gave."""
    places = (given / "node_modules" / package.name, given / package.name, given)
    return next((place for place in places if all(_found(place, name) for name in package.files)), places[0])


def _found(folder: Path, name: str) -> Path | None:
    """A file of a package, in its own place or beside all others."""
    return next((path for path in (folder / name, folder / Path(name).name) if path.is_file()), None)


def _take(package: Package, folder: Path, target: Path) -> None:
    for name, digest in package.files.items():
        path = _found(folder, name)
        if path is None:
            raise UserError(f"{folder}: has no {name} of npm's {package.wanted}; {_BY_HAND}")
        try:
            if sha256(path) != digest:
                raise UserError(f"{path}: is not the file of npm's {package.wanted} (SHA-256 differs); {_BY_HAND}")
            shutil.copyfile(path, target / path.name)
        except OSError as error:
            raise UserError(f"cannot copy {describe_os_error(error, path)}") from error


def _fetch(package: Package, scratch: Path) -> Path:
    """The unpacked package from the user's registry."""
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"--web: npm, which brings {package.wanted}, is not installed; install Node.js, {_BY_HAND}")
    command = [npm, "pack", package.wanted, "--silent", "--pack-destination", str(scratch)]
    try:
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise UserError(f"--web: npm brought no {package.wanted} in {PATIENCE} s; try again, {_BY_HAND}") from None
    archives = list(scratch.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        raise UserError(f"--web: npm cannot fetch {package.wanted} (no network?); try again, {_BY_HAND}")
    return unpack(package, archives[0], scratch)


def unpack(package: Package, archive: Path, scratch: Path) -> Path:
    """Compare an archive with its integrity hash and unpack the files that are wanted.

    Raises:
        UserError: for any other archive.
    """
    content = archive.read_bytes()
    if "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode() != package.integrity:
        raise UserError(f"--web: what npm gave for {package.wanted} is another archive (integrity hash); {_BY_HAND}")
    with tarfile.open(archive) as opened:
        for name in package.files:
            member = opened.extractfile(f"package/{name}")
            assert member is not None  # the hash says which archive it is
            (scratch / Path(name).name).write_bytes(member.read())
    return scratch
