"""The published layout, both ways, and files that must be refused."""

import pickle

import pytest
import torch

from models import build_model
from models.checkpoint import EXTRA_KEY, load_model, read_checkpoint, write_checkpoint
from models.moe_mae import count_parameters
from models.published_layout import from_published, to_published
from models.weights_command import main
from utils.errors import CheckpointError
from utils.files import sha256

ENTRIES = {"S": 692, "XS": 572, "XXS": 452}


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of ours: its path and its model."""
    model = build_model("XXS", seed=0)
    write_checkpoint(tmp_path / "ours.pth", model, epoch=3, best_train_loss=1.5)
    return tmp_path / "ours.pth", model


def as_published(path, target, **changes):
    """The same weights as a file of the published code."""
    content = torch.load(path, weights_only=True)
    del content[EXTRA_KEY]
    torch.save({**content, **changes}, target)
    return target


@pytest.mark.parametrize("size", ENTRIES)
def test_round_trip_and_number_of_entries(size: str) -> None:
    model = build_model(size, seed=1)
    state = model.state_dict()
    published = to_published(state, model.config)
    assert len(published) == ENTRIES[size]
    assert (
        published["encoder.layers.0.moe.experts.1.V.weight"].data_ptr()
        == state["encoder.layers.0.moe.experts.V.weight"].data_ptr()
    )
    back = from_published(published, model.config)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("overrides", [{"experts": 1}, {"depth": 2, "experts": [1, 3]}, {"embed_dim": 36, "k": 1}])
def test_our_file_rebuilds_any_model(tmp_path, overrides) -> None:
    model = build_model("XXS", seed=0, in_channels=4, img_size=16, **overrides)
    write_checkpoint(tmp_path / "m.pth", model, epoch=0, best_train_loss=0.0)
    again = load_model(tmp_path / "m.pth")
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))


def test_a_published_file_selects_published_behaviour(saved, tmp_path, capsys) -> None:
    path, model = saved
    assert not load_model(path).config.published_behaviour
    published = as_published(path, tmp_path / "theirs.pth")
    assert read_checkpoint(published).published
    loaded = load_model(published)
    assert loaded.config == model.config.replace(published_behaviour=True)
    assert "published_behaviour: true" in capsys.readouterr().out
    torch.save(torch.load(path, weights_only=True)["model_state"], tmp_path / "bare.pth")
    assert load_model(tmp_path / "bare.pth").config.published_behaviour


def test_the_reference_file_loads_strictly(reference_dir) -> None:
    path = reference_dir / "reference" / "published_layout_S.pth"
    checkpoint = read_checkpoint(path)
    state = torch.load(path, weights_only=True)["model_state"]
    again = to_published(checkpoint.build().state_dict(), checkpoint.config)
    assert checkpoint.config.published_behaviour
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_what_is_asked_must_be_what_is_there(saved) -> None:
    path, _ = saved
    with pytest.raises(CheckpointError, match=r"model.size is XXS, not S"):
        load_model(path, {"size": "S"})
    assert load_model(path, {"size": "XXS", "mask_ratio": 0.5, "experts": None}).masking.ratio == 0.5
    with pytest.raises(CheckpointError, match=r"model.experts is \[3, .*5\], not \[2, .*2\]\); correct or leave"):
        load_model(path, {"experts": 2})
    with pytest.raises(CheckpointError, match=r"\(model.embed_dim is 108, not 12; model.k is 2, not 1\)"):
        load_model(path, {"embed_dim": 12, "k": 1})
    assert load_model(path, {"dropout": 0.4}).config.dropout == 0.4


def test_the_config_decides_how_a_model_behaves(saved, tmp_path, capsys) -> None:
    """A file's own setting is followed where nobody says otherwise; what is said otherwise is said."""
    ours, theirs = saved[0], as_published(saved[0], tmp_path / "theirs.pth")
    for path, asked, behaves, said in (
        (ours, None, False, ""),
        (ours, False, False, ""),
        (ours, True, True, "was trained with published_behaviour: False; the config overrides it\n"),
        (theirs, None, True, "a published checkpoint; using published_behaviour: true\n"),
        (theirs, True, True, "a published checkpoint; using published_behaviour: true\n"),
        (theirs, False, False, "was trained with published_behaviour: True; the config overrides it\n"),
    ):
        assert load_model(path, published_behaviour=asked).config.published_behaviour is behaves
        assert capsys.readouterr().out == (f"{path}: {said}" if said else "")


def test_wrapped_weights_are_taken_out_and_newer_files_refused(saved, tmp_path, capsys) -> None:
    content = torch.load(saved[0], weights_only=True)
    wrapped = {"state_dict": {f"module.{name}": value for name, value in content["model_state"].items()}}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    read = read_checkpoint(tmp_path / "wrapped.pth")
    assert read.published and read.model_state.keys() == saved[1].state_dict().keys()
    assert "wrapped.pth: weights wrapped as state_dict:, module.; taken out of it" in capsys.readouterr().out
    newer = {**content, EXTRA_KEY: {**content[EXTRA_KEY], "version": 2}}
    torch.save(newer, tmp_path / "newer.pth")
    with pytest.raises(CheckpointError, match=r"newer\.pth: written by a newer version \(format 2\); update"):
        read_checkpoint(tmp_path / "newer.pth")
    with pytest.raises(CheckpointError, match=r": is a folder; give a checkpoint \(\.pth\) of this model"):
        read_checkpoint(tmp_path)


def test_the_command_says_what_a_file_holds(saved, tmp_path, capsys) -> None:
    for path, kind, behaviour in (
        (saved[0], "a file of this project", "false"),
        (as_published(saved[0], tmp_path / "theirs.pth"), "a published file", "true"),
    ):
        assert main([str(path)]) == 0
        assert capsys.readouterr().out.splitlines()[-7:] == [
            f"{path}: {kind}, every entry in place",
            f"  size        XXS, {count_parameters(saved[1]):,} parameters",
            "  input       7 bands of 40 x 40 pixels",
            "  metadata    week, hour, lat, lon",
            "  pooling     cls, 108 numbers a patch",
            f"  published_behaviour: {behaviour}",
            f"  sha256      {sha256(path)}",
        ]
    assert main([]) == 0 and "(default): size S" in capsys.readouterr().out


def test_a_checkpoint_is_written_with_what_a_run_needs(tmp_path) -> None:
    """And without, where it is for use only; its hash is that of the file."""
    model = build_model("XXS", seed=0, depth=1)
    path = tmp_path / "new" / "m.pth"
    digest = write_checkpoint(path, model, epoch=3, best_train_loss=1.5)
    assert digest == sha256(path)
    content = torch.load(path, weights_only=True)
    assert list(content) == ["epoch", "model_state", "opt_state", "scaler_state", "best_train_loss", EXTRA_KEY]
    assert (content["epoch"], content["best_train_loss"]) == (3, 1.5)
    assert content["opt_state"] == {} == content["scaler_state"]
    assert content[EXTRA_KEY].keys() == {"version", "config", "published_behaviour"}
    assert content[EXTRA_KEY]["version"] == 1 and content[EXTRA_KEY]["published_behaviour"] is False
    more = {"opt_state": {"a": 1}, "scaler_state": {"b": 2}, "extra": {"progress": {"c": 3}}}
    write_checkpoint(str(path), model, epoch=4, best_train_loss=1.0, **more)
    content = torch.load(path, weights_only=True)
    assert content["opt_state"] == {"a": 1} and content["scaler_state"] == {"b": 2}
    assert content[EXTRA_KEY]["progress"] == {"c": 3} and content["epoch"] == 4
    read = read_checkpoint(str(path))
    assert not read.published and read.path == path and read.content["epoch"] == 4 and not read.build().training


@pytest.mark.parametrize("damage", ["missing", "surplus", "shape", "copies"])
def test_entries_are_strict(saved, tmp_path, damage: str) -> None:
    path, _ = saved
    state = torch.load(path, weights_only=True)["model_state"]
    if damage == "missing":
        del state["encoder.norm.bias"]
    elif damage == "surplus":
        state["encoder.extra"] = torch.zeros(1)
    elif damage == "shape":
        state["decoder_pred.bias"] = torch.zeros(3)
    else:
        state["encoder.layers.2.moe.experts.1.V.weight"] = state["encoder.layers.2.moe.experts.1.V.weight"] + 1
    named = {
        "missing": "lacks encoder.norm.bias",
        "surplus": "unexpected encoder.extra",
        "shape": "decoder_pred.bias",
        "copies": "encoder.layers.2.moe.experts.1.V.weight",
    }
    with pytest.raises(CheckpointError, match=named[damage]):
        read_checkpoint(as_published(path, tmp_path / "bad.pth", model_state=state))


class Malice:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_files_that_are_refused(saved, tmp_path, capsys) -> None:
    path, _ = saved
    whole = path.read_bytes()
    files = {
        "truncated.pth": whole[: len(whole) // 2],
        "text.pth": b"not a checkpoint",
        "empty.pth": b"",
        "pickle.pth": pickle.dumps({"model_state": Malice()}),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"model_state": Malice()}, tmp_path / "objects.pth")
    torch.save({"something": 1}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"model_state": {"encoder.pos_embed": torch.zeros(1, 7, 3)}}, tmp_path / "half.pth")
    for name in [*files, "objects.pth", "other.pth", "list.pth", "half.pth", "absent.pth"]:
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(tmp_path / name)
        assert name in str(caught.value), name
        assert "\n" not in str(caught.value), name
    assert "must never run" not in capsys.readouterr().out


def spoil_state(state: dict, kind: str) -> None:
    if kind == "nan":
        state["encoder.norm.weight"][3] = float("nan")
    elif kind == "whole numbers":
        state["encoder.norm.weight"] = torch.ones(108, dtype=torch.int64)
    elif kind == "flat positions":
        state["encoder.pos_embed"] = torch.zeros(7)
    elif kind == "few positions":
        state["encoder.pos_embed"] = torch.zeros(1, 3, 108)
    elif kind == "uneven experts":
        for expert, rows in ((0, 80), (1, 82)):
            state[f"encoder.layers.0.moe.experts.{expert}.W.weight"] = torch.zeros(rows, 108)


SPOILED = {
    "nan": "NaN or infinite numbers in encoder.norm.weight",
    "whole numbers": "whole numbers where weights belong, in encoder.norm.weight",
    "flat positions": "is not a checkpoint of this model",
    "few positions": "is not a checkpoint of this model",
    "uneven experts": r"experts.0.W.weight \(80, 108\), encoder.layers.0.moe.experts.1.W.weight \(82, 108\)",
}


@pytest.mark.parametrize("kind", SPOILED)
def test_spoiled_weights_are_named(saved, tmp_path, kind: str) -> None:
    state = torch.load(saved[0], weights_only=True)["model_state"]
    spoil_state(state, kind)
    with pytest.raises(CheckpointError, match=SPOILED[kind]):
        read_checkpoint(as_published(saved[0], tmp_path / "bad.pth", model_state=state))


@pytest.mark.parametrize(
    "change", [{"patch_size": 0}, {"decoder_heads": 7}, {"dfirsth": -1}, {"depth": "x"}, {"zz": 1}]
)
def test_impossible_configs_in_a_file(saved, tmp_path, change: dict) -> None:
    content = torch.load(saved[0], weights_only=True)
    content[EXTRA_KEY]["config"].update(change)
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="config"):
        read_checkpoint(tmp_path / "bad.pth")


def test_a_file_of_another_width_is_refused(tmp_path) -> None:
    model = build_model("XXS", embed_dim=36, seed=0)
    write_checkpoint(tmp_path / "m.pth", model, epoch=0, best_train_loss=0.0)
    with pytest.raises(CheckpointError, match="width 36"):
        read_checkpoint(as_published(tmp_path / "m.pth", tmp_path / "p.pth"))
