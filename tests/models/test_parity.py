"""The fast model against the plain one in this folder, and against outputs of the published code."""

import json
import re

import numpy as np
import plain_model as plain
import pytest
import torch
from balance import total_balance

from models import MOEMAE, build_model
from models.checkpoint import read_checkpoint
from models.losses import mae_loss
from models.masking import random_masking
from models.published_layout import to_published
from utils.metadata import PUBLISHED_FIELDS
from utils.randomness import generator

TOLERANCE = 1e-4


def without_dropout(model: MOEMAE) -> MOEMAE:
    model.config = model.config.replace(dropout=0.0)
    return model


def published_grads(model: MOEMAE) -> dict[str, torch.Tensor]:
    """Gradients by published name, shared tensors once under their first name."""
    grads = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    named = to_published(grads, model.config)
    copies = re.compile(r"experts\.[1-9]\d*\.(V|W2)|^patch_embed")
    return {name: grad for name, grad in named.items() if not copies.search(name)}


@pytest.mark.parametrize("published", [False, True])
def test_equals_the_plain_model(published: bool) -> None:
    """Tokens, losses and every gradient of a small XXS pass, in both ways of being right."""
    model = without_dropout(build_model("XXS", seed=3, img_size=16, published_behaviour=published))
    rng = generator(5, "parity")
    with torch.no_grad():  # biases and positions start near zero; make every term count
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=rng)
    images, meta = torch.randn(2, 7, 16, 16, generator=rng), torch.randn(2, 4, 2, generator=rng)
    masking = random_masking(torch.rand(2, 16, generator=rng), 0.75)
    keep = masking.ids_keep.tolist()

    weights = {name: v.double().requires_grad_() for name, v in to_published(model.state_dict(), model.config).items()}
    for name in list(weights):  # the shared tensors are one leaf, as in the real model
        first = re.sub(r"experts\.\d+\.(V|W2)", r"experts.0.\1", name)
        weights[name] = weights[first]
    shape = plain.Shape()
    expected = plain.loss(weights, shape, images.double(), meta.double(), keep, published)
    expected[0].backward()

    losses, passed = mae_loss(model, images, meta, masking, noise=False)
    losses.total.backward()
    reference = plain.encode(weights, shape, images.double(), meta.double(), keep, published)
    assert (passed.encoded.tokens - reference.tokens).abs().max() <= TOLERANCE
    assert (passed.encoded.pre_norm - reference.pre_norm).abs().max() <= TOLERANCE
    for ours, theirs in zip(losses, expected, strict=True):
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    for name, grad in published_grads(model).items():
        theirs = weights[name].grad
        theirs = torch.zeros_like(weights[name]) if theirs is None else theirs
        assert (grad - theirs).norm() <= 1e-3 * theirs.norm() + 1e-5, name


@pytest.fixture(scope="module")
def published(reference_dir):
    """The published checkpoint and what the published code gives for it."""
    arrays = np.load(reference_dir / "reference" / "published_layout_S_outputs.npz")
    outputs = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "ids"}
    outputs["meta"] = torch.stack([outputs[f"meta_{field}"] for field in PUBLISHED_FIELDS], dim=1)
    model = without_dropout(read_checkpoint(reference_dir / "reference" / "published_layout_S.pth").build())
    return model, outputs


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return (ours - theirs).abs().max().item()


def test_published_tokens(published) -> None:
    model, outputs = published
    with torch.no_grad():
        encoded = model.encode(outputs["images"], outputs["meta"])
        alone = model.encode(outputs["images"])
    assert difference(encoded.tokens, outputs["encoder_tokens_norm"]) <= TOLERANCE
    assert difference(encoded.pre_norm, outputs["encoder_tokens"]) <= TOLERANCE
    assert difference(alone.pre_norm, outputs["encoder_tokens_no_meta"]) <= TOLERANCE
    assert difference(total_balance(encoded, True), outputs["encoder_moe_loss"]) <= TOLERANCE


def test_published_losses_and_gradients(published, reference_dir) -> None:
    model, outputs = published
    masking = random_masking(outputs["mask_noise"], 0.75)
    assert torch.equal(masking.mask, outputs["mask"])
    assert torch.equal(masking.ids_restore, outputs["ids_restore"])
    predicted, _ = model(outputs["images"], outputs["meta"], masking)
    assert difference(predicted, outputs["pred"]) <= TOLERANCE
    model.zero_grad()
    losses, _ = mae_loss(model, outputs["images"], outputs["meta"], masking)
    assert losses.masked.item() == pytest.approx(outputs["loss_masked"].item(), abs=TOLERANCE)
    assert losses.visible.item() == pytest.approx(outputs["loss_unmasked"].item(), abs=TOLERANCE)
    assert losses.balance.item() == pytest.approx(outputs["mae_moe_loss"].item(), abs=TOLERANCE)
    assert losses.total.item() == pytest.approx(outputs["loss_total"].item(), abs=TOLERANCE)

    losses.total.backward()
    norms = json.loads((reference_dir / "reference" / "published_layout_S_grad_norms.json").read_text())
    ours = published_grads(model)
    assert set(norms) <= set(ours)
    for name, grad in ours.items():
        expected = norms.get(name, 0.0)
        if expected > 1e-6:
            assert grad.norm().item() == pytest.approx(expected, rel=1e-3), name
        else:
            assert grad.norm().item() <= 1e-6, name
