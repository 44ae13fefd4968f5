"""Files of a dataset repository on the Hugging Face hub, fetched so that a killed transfer goes on where it stopped.

`huggingface_hub` finds the files, knows the user's token and talks to the server. The transfer itself stands here,
because `hf_hub_download` throws a partial file away when its process ends, which for 14 GB is no resuming.
"""

import hashlib
import importlib.util
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit

from tqdm import tqdm

from utils.errors import ConfigError, DataError, UserError, describe_os_error
from utils.files import sync

TRIES = 5
"""In a row without a new byte, before a transfer is given up."""
RETRY_WAIT = 1.0
"""Before the second try; every further wait is twice as long. Seconds."""
TIMEOUT = 20.0
"""For an answer, and between two pieces of a file. Seconds."""
BLOCK = 1 << 20
SHA256_DIGITS, GIT_DIGITS = 64, 40
"""A large file's ETag is its SHA-256, a small one's the hash that git gives it."""
AGAIN = "run the same command again to go on"


class RemoteFile(NamedTuple):
    """A file of one revision of a repository."""

    name: str
    url: str
    etag: str
    bytes: int
    commit: str


def require_hub() -> None:
    """Raise ConfigError where the optional package is missing."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ConfigError("downloading needs the package huggingface_hub: pip install 'huggingface_hub>=1.0'")


def locate(repo: str, names: Sequence[str], revision: str, endpoint: str | None) -> list[RemoteFile]:
    """Ask the hub for sizes and checksums, all of one commit.

    Args:
        repo: of a dataset, `owner/name`.
        names: of its files.
        revision: a branch, tag or commit.
        endpoint: another server that speaks as the hub does; None is HF_ENDPOINT, or the hub.

    Raises:
        ConfigError: when the package is missing, or `endpoint` is no URL.
        UserError: naming the file and why it is not to be had.
    """
    require_hub()
    if endpoint is not None and (urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).netloc):
        raise ConfigError(f"--endpoint {endpoint}: expected a URL such as https://huggingface.co")
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    files: list[RemoteFile] = []
    for name in names:
        commit = files[0].commit if files else revision
        url = hf_hub_url(repo, name, repo_type="dataset", revision=commit, endpoint=endpoint)
        with _explained(f"{repo}/{name}"):
            found = get_hf_file_metadata(url, timeout=TIMEOUT)
        if not (found.commit_hash and found.etag and found.size is not None):
            raise UserError(f"{url}: the server gives no commit, size and checksum as the hub does; check --endpoint")
        pinned = hf_hub_url(repo, name, repo_type="dataset", revision=found.commit_hash, endpoint=endpoint)
        files.append(RemoteFile(name, pinned, found.etag, found.size, found.commit_hash))
    return files


def fetch(file: RemoteFile, folder: Path) -> Path:
    """Fetch a file into `folder`, going on with a partial one; it has its name only once its checksum agrees.

    Raises:
        UserError: when the transfer cannot be finished; what has come stays for the next try.
        DataError: when something else has come than the hub says; it is removed.
    """
    target, part = folder / file.name, part_of(folder / file.name)
    try:
        with part.open("ab") as out:
            if out.tell() > file.bytes:
                _empty(out)
            bar = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "leave": False, "disable": None}
            with tqdm(total=file.bytes, initial=out.tell(), desc=f"fetching {file.name}", **bar) as progress:
                _receive_all(file, out, progress)
    except OSError as error:
        raise UserError(f"cannot write {describe_os_error(error, part)}; {AGAIN}") from error
    if not agrees(part, file.etag):
        part.unlink()
        raise DataError(f"{target}: what came has another checksum than the hub lists; removed, {AGAIN}")
    sync(part)
    part.replace(target)
    return target


def part_of(target: Path) -> Path:
    """Where a file grows until it is whole."""
    return target.with_name(f"{target.name}.part")


def has_checksum(etag: str) -> bool:
    """Whether an ETag is a hash of the file's bytes, as the hub's are."""
    return len(etag) in (SHA256_DIGITS, GIT_DIGITS) and set(etag) <= set("0123456789abcdef")


def agrees(path: Path, etag: str) -> bool:
    """Whether a file's bytes are those of its ETag; True where the ETag is no checksum."""
    if not has_checksum(etag):
        return True
    digest = hashlib.sha256() if len(etag) == SHA256_DIGITS else hashlib.sha1(usedforsecurity=False)
    size = path.stat().st_size
    if len(etag) == GIT_DIGITS:
        digest.update(b"blob %d\0" % size)  # how git names a file's contents
    progress = tqdm(total=size, desc=f"checking {path.name}", unit="B", unit_scale=True, leave=False, disable=None)
    with path.open("rb") as file, progress:
        while block := file.read(BLOCK):
            digest.update(block)
            progress.update(len(block))
    return digest.hexdigest() == etag


def _receive_all(file: RemoteFile, out: BinaryIO, progress: tqdm) -> None:
    """Append to `out` until it is whole, trying again where the connection breaks."""
    failed = 0
    while out.tell() < file.bytes:
        before = out.tell()
        try:
            with _explained(file.name):
                _receive(file, out, progress)
            if out.tell() < file.bytes:
                raise _Broken(f"{file.name}: the server stopped early")
        except _Broken as error:
            failed = 1 if out.tell() > before else failed + 1
            if failed >= TRIES:
                there = f"{out.tell() / 1e6:,.1f} of {file.bytes / 1e6:,.1f} MB are there"
                raise UserError(f"{error}; {there}, {AGAIN}") from error
            time.sleep(RETRY_WAIT * 2 ** (failed - 1))


def _receive(file: RemoteFile, out: BinaryIO, progress: tqdm) -> None:
    """One request for what is missing."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    # The URL names the commit, so that a file cannot be put together from two revisions.
    headers = build_hf_headers(headers={"Range": f"bytes={out.tell()}-", "Accept-Encoding": "identity"})
    request: dict[str, Any] = {"headers": headers, "follow_redirects": True, "timeout": TIMEOUT}
    with get_session().stream("GET", file.url, **request) as response:
        hf_raise_for_status(response)
        if response.status_code != 206:  # the whole file, from its beginning
            _empty(out)
            progress.reset()
        for (
            block
        ) in response.iter_raw():  # as it comes: a block of a given size would be lost in part when it breaks off
            out.write(block[: file.bytes - out.tell()])
            progress.update(out.tell() - progress.n)


def _empty(out: BinaryIO) -> None:
    out.seek(0)
    out.truncate()


class _Broken(UserError):
    """The connection broke; another try may help."""


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what the hub's library raises into one line; broken connections into `_Broken`."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # The library's HTTP client differs between its versions; all that its client raises descends from this.
    transport: type[BaseException] = HfHubHTTPError.__mro__[1]
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise UserError(f"{what}: HF_HUB_OFFLINE is set; unset it to download") from error
    except HfHubHTTPError as error:
        raise _refusal(what, error.response.status_code) from error
    except transport as error:
        reason = str(error) or type(error).__name__
        raise _Broken(f"{what}: the server cannot be reached ({reason}); check the network or --endpoint") from error


def _refusal(what: str, status: int) -> UserError:
    if status in (401, 403):
        reason = "is not there or not open to you; log in with `hf auth login`, or check --endpoint"
    elif status == 404:
        reason = "is not there; check --revision and --endpoint"
    elif status == 429:
        reason = "the server wants fewer requests; try again later"
    elif status >= 500:
        return _Broken(f"{what}: the server is in trouble (HTTP {status}); try again later")
    else:
        reason = "the server refuses it"
    return UserError(f"{what}: {reason} (HTTP {status})")
