"""Strategies and ratios of masking: chosen by a config, kept by a checkpoint, the same for all who mask."""

import pytest
import torch

from models.checkpoint import EXTRA_KEY, load_model, read_checkpoint, write_checkpoint
from models.config import ModelConfig, from_record, to_record
from models.masking import STRATEGIES, Masking, MaskingConfig, make_masking, random_masking, seeded_masking
from models.moe_mae import build_model
from utils.errors import CheckpointError


def saved(path, masking: MaskingConfig):
    numbers = {"depth": 1, "embed_dim": 12, "num_heads": 2, "num_groups": 1, "decoder_depth": 1}
    model = build_model("XXS", seed=0, masking=masking, **numbers)
    write_checkpoint(path, model, epoch=0, best_train_loss=0.0)
    return path


def first_patches(noise: torch.Tensor, ratio: float) -> Masking:
    """A strategy that keeps the first patches of every image."""
    return random_masking(torch.arange(noise.shape[1]).float().expand(noise.shape), ratio)


def test_another_strategy_is_one_row_of_the_table(monkeypatch) -> None:
    monkeypatch.setitem(STRATEGIES, "first", first_patches)
    found = make_masking(torch.rand(2, 100), MaskingConfig(0.9, "first"))
    assert found.mask.sum(dim=1).tolist() == [90.0, 90.0] and found.ids_keep[1].tolist() == list(range(10))


def test_a_mask_is_a_function_of_the_key() -> None:
    how, device = MaskingConfig(0.5), torch.device("cpu")
    several = seeded_masking([(0, "a"), (0, "b"), (1, "a")], 16, how, device)
    alone = seeded_masking([(0, "b")], 16, how, device)
    assert torch.equal(several.mask[1:2], alone.mask)
    assert len({tuple(row) for row in several.mask.tolist()}) == 3


def test_a_checkpoint_keeps_how_it_was_trained(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(STRATEGIES, "first", first_patches)
    path = saved(tmp_path / "a.pth", MaskingConfig(0.5, "first"))
    assert load_model(path).masking == MaskingConfig(0.5, "first")
    assert load_model(path, {"mask_ratio": 0.9}).masking == MaskingConfig(0.9, "first")
    assert load_model(path, {"mask_strategy": "random"}).masking == MaskingConfig(0.5)
    monkeypatch.delitem(STRATEGIES, "first")
    with pytest.raises(CheckpointError, match="mask_strategy: 'first' is none of random"):
        read_checkpoint(path)


def test_files_written_before_there_were_strategies(tmp_path) -> None:
    """Their config holds the ratio among the model's numbers, and so does that of files written now."""
    path = saved(tmp_path / "a.pth", MaskingConfig(0.5))
    values = torch.load(path, weights_only=True)[EXTRA_KEY]["config"]
    assert values["mask_ratio"] == 0.5 and "mask_strategy" not in values
    assert from_record(values) == (read_checkpoint(path).config, MaskingConfig(0.5))
    assert to_record(*from_record(values)) == values


@pytest.mark.parametrize(("masking", "problem"), [
    (MaskingConfig(0.001), "mask_ratio: 0.001 removes none of the 100 patches"),
    (MaskingConfig(strategy="stripes"), "mask_strategy: 'stripes' is none of random"),
])  # fmt: skip
def test_impossible_maskings(masking: MaskingConfig, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        from_record(to_record(ModelConfig.of_size("XXS"), masking))
