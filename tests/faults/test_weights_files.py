"""Files of weights with flipped bits, cut off, or another's: refused, or the very weights; never others in silence."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from faults import REFUSED, USED, Attempt, damaged, ending, flipped
from model_hub import serving
from tiny import tiny_model
from tiny_weights import write_published_checkpoint, write_tiny_checkpoint

from models import MOEMAE
from models.checkpoint import EXTRA_KEY, read_checkpoint
from utils.archives import damage_of
from utils.errors import CheckpointError

CENTRAL_DIRECTORY = b"PK\x01\x02"
LOCATOR = b"PK\x06\x07"
"""Of the end of the central directory in an archive of 64-bit sizes."""


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch) -> None:
    monkeypatch.setattr("models.checkpoint.REPLACED_WITHIN_SECONDS", 0.0)


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def reading(path: Path, whole: bytes) -> Callable[[Attempt, bytes], str]:
    """A try: write other bytes to a file of weights, read it, and compare with what `whole` holds."""
    path.write_bytes(whole)
    expected = read_checkpoint(path)

    def read(attempt: Attempt, data: bytes) -> str:
        attempt.keep(data, path.name)
        path.write_bytes(data)

        def work() -> None:
            found = read_checkpoint(path)
            assert same(found.model_state, expected.model_state), "other weights in silence"
            assert (found.config, found.masking) == (expected.config, expected.masking), "another config in silence"

        return ending(work)

    return read


@pytest.mark.parametrize("kind", ["published", "ours"])
def test_damaged_files(campaign, tmp_path, kind) -> None:
    """No hash of them is on record: the archive's own checksums decide."""
    write = {"published": write_published_checkpoint, "ours": write_tiny_checkpoint}[kind]
    whole = write(tmp_path / "a.pth").read_bytes()
    read = reading(tmp_path / "weights.pth", whole)
    found = campaign(f"damage of a {kind} pth", 40, 1000).run(lambda at: read(at, damaged(whole, at.random)))
    assert found[REFUSED] > 0.8 * found.total()


def test_flips_where_an_archive_describes_its_members(campaign, tmp_path) -> None:
    """Readers differ in what they look at there: names, sizes, places and kinds of members."""
    whole = write_tiny_checkpoint(tmp_path / "a.pth", depth=1).read_bytes()
    read, start = reading(tmp_path / "weights.pth", whole), whole.index(CENTRAL_DIRECTORY)

    def one(attempt: Attempt) -> str:
        return read(attempt, whole[:start] + flipped(whole[start:], attempt.random))

    found = campaign("flips in the central directory of a pth", 40, 3000).run(one)
    assert found[REFUSED] and found[USED]


def test_an_archive_that_says_it_is_one_of_several(tmp_path) -> None:
    """Python's `is_zipfile` raises there in place of an answer."""
    path = write_tiny_checkpoint(tmp_path / "a.pth", depth=1)
    whole = path.read_bytes()
    disks = whole.index(LOCATOR) + 16
    path.write_bytes(whole[:disks] + b"\x02" + whole[disks + 1 :])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        read_checkpoint(path)


def test_a_member_that_is_marked_as_a_folder(tmp_path) -> None:
    """PyTorch's reader leaves such a tensor as the memory was."""
    path = write_tiny_checkpoint(tmp_path / "a.pth", depth=1)
    whole = path.read_bytes()
    at = whole.index(CENTRAL_DIRECTORY)
    while b"/data/0" not in whole[at + 46 : at + 46 + int.from_bytes(whole[at + 28 : at + 30], "little")]:
        at = whole.index(CENTRAL_DIRECTORY, at + 4)
    path.write_bytes(whole[: at + 38] + bytes([whole[at + 38] | 0x10]) + whole[at + 39 :])
    with pytest.raises(CheckpointError, match=r"data/0: is marked as a folder"):
        read_checkpoint(path)


def test_every_bit_of_a_small_archive(campaign) -> None:
    """Whatever PyTorch reads otherwise, the checksums know of."""
    state = {"a": torch.arange(6.0), "b": {"c": torch.ones(3, 2), "n": 5}}
    file = io.BytesIO()
    torch.save(state, file)
    whole = file.getvalue()

    def one(attempt: Attempt) -> str:
        bit = attempt.number * 1009 % (8 * len(whole))  # all of them, sooner or later
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        attempt.keep(bytes(data), "archive.pth")
        if bytes(data[:4]) != whole[:4] or damage_of(io.BytesIO(data)):
            return REFUSED
        try:
            found = torch.load(io.BytesIO(data), weights_only=True)
        except Exception:
            return REFUSED
        assert torch.equal(found["a"], state["a"]) and torch.equal(found["b"]["c"], state["b"]["c"])
        assert found["b"]["n"] == 5
        return USED

    campaign("bits of a small archive", 300, 8 * len(whole)).run(one)


# --------------------------------------------------------------------------- hashes on record


def test_the_manifest_is_looked_at(tmp_path) -> None:
    """Weights that are whole, but not those of the record; and the record of nothing else is looked at."""
    shutil.copytree(ROOT / "weights", tmp_path / "weights")
    folder = tmp_path / "weights" / "moe_mae_simulated"
    read_checkpoint(folder / "pretrained_XXS_best.pth")
    shutil.copy(tmp_path / "weights/moe_mae_plus/pretrained_XXS_best.pth", folder)
    for source in (folder, folder / "pretrained_XXS_best.pth"):
        with pytest.raises(
            CheckpointError, match=r"is not the file that .*manifest\.json records \(sha256\)"
        ) as caught:
            MOEMAE.from_pretrained(source)
        assert "\n" not in str(caught.value)
    (folder / "pretrained_XXS_best.pth").rename(folder / "mine.pth")
    read_checkpoint(folder / "mine.pth")
    for text in ("[]", "{", '{"moe_mae_simulated/mine.pth": 3}', "[" * 5000):
        (tmp_path / "weights/manifest.json").write_text(text)
        read_checkpoint(folder / "mine.pth")


def test_the_record_beside_a_checkpoint_is_looked_at(tmp_path) -> None:
    path = write_tiny_checkpoint(tmp_path / "checkpoint_XXS.pth")
    read_checkpoint(path)  # without a record, as a copy has none
    for text, said in (
        ('{"sha256": "0"}', r"is not the file that checkpoint_XXS\.json records"),
        ("{}", r"has no readable checkpoint_XXS\.json beside it"),
        ("[[[[", "has no readable"),
    ):
        path.with_suffix(".json").write_text(text)
        with pytest.raises(CheckpointError, match=said):
            read_checkpoint(path)


def test_a_checkpoint_that_is_being_replaced_is_read_again(tmp_path, monkeypatch) -> None:
    path = write_tiny_checkpoint(tmp_path / "checkpoint_XXS.pth")
    path.with_suffix(".json").write_text('{"sha256": "0"}')
    monkeypatch.setattr("models.checkpoint.time.sleep", lambda seconds: path.with_suffix(".json").unlink())
    read_checkpoint(path)


def test_the_hub_names_its_files_by_their_hash(tmp_path, monkeypatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    whole = write_tiny_checkpoint(tmp_path / "repository" / "weights.pth")
    with serving("someone/model", whole.parent, large=True) as endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        MOEMAE.from_pretrained("someone/model")
        (cached,) = (tmp_path / "cache").rglob("weights.pth")
        if not cached.is_symlink():
            pytest.skip("the hub's cache has no links on this file system, and so no hashes")
        blob = cached.resolve()
        write_tiny_checkpoint(tmp_path / "other.pth", k=1).replace(blob)
        with pytest.raises(CheckpointError, match=r"that the Hugging Face hub records \(sha256\); remove .*/blobs/"):
            MOEMAE.from_pretrained("someone/model")
        blob.unlink()
        MOEMAE.from_pretrained("someone/model")


# --------------------------------------------------------------------------- exported folders


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    from models.weights_folder import write_weights_folder

    folder = tmp_path_factory.mktemp("export")
    write_weights_folder(folder, tiny_model(), {"made_from": {"file": "a.pth", "sha256": "0" * 64}})
    return folder


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_exports(campaign, exported, tmp_path, name) -> None:
    folder = shutil.copytree(exported, tmp_path / "f")
    expected, whole = MOEMAE.from_pretrained(folder), (folder / name).read_bytes()

    def one(attempt: Attempt) -> str:
        data = damaged(whole, attempt.random)
        attempt.keep(data, name)
        (folder / name).write_bytes(data)

        def work() -> None:
            found = MOEMAE.from_pretrained(folder)
            assert found.config == expected.config and same(found.state_dict(), expected.state_dict())

        return ending(work)

    found = campaign(f"damage of an export's {name}", 40, 1000).run(one)
    assert found[REFUSED] > 0.8 * found.total()


def test_exports_of_before_have_no_checksum(exported, tmp_path) -> None:
    folder = shutil.copytree(exported, tmp_path / "f")
    about = json.loads((folder / "config.json").read_text())
    old = {key: value for key, value in about.items() if key not in ("checksum", "checksum_of")}
    (folder / "config.json").write_text(json.dumps(old))
    MOEMAE.from_pretrained(folder)


def test_files_without_checksums_are_said_to_be(tmp_path, capsys) -> None:
    """PyTorch's form of before 1.6 is no archive."""
    path = write_tiny_checkpoint(tmp_path / "a.pth")
    content = torch.load(path, weights_only=True)
    assert EXTRA_KEY in content
    torch.save(content, path, _use_new_zipfile_serialization=False)
    read_checkpoint(path)
    assert "a.pth: is of an old form that has no checksums" in capsys.readouterr().out
