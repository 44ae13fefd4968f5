"""Muon for the matrices of the blocks, AdamW for the rest."""

import pytest
import torch
from pretraining import train
from tiny import training_config
from tiny_step import CONFIG, CPU, SIZE, a_batch
from torch import nn

from configs.schema import TrainingSection
from models import build_model
from models.losses import LossWeights
from training.muon import Matrix, MuonWithAdamW, block_matrices, orthogonalized
from training.optimizer import load_optimizer, optimizer_of
from training.step import StepOptions, TrainStep
from utils.errors import ConfigError, TrainingDiverged
from utils.randomness import generator

MUON = TrainingSection(optimizer="muon", learning_rate=1e-3, muon_learning_rate=5e-3)


def numbers(*shape: int, role: str = "x") -> torch.Tensor:
    return torch.randn(*shape, generator=generator(0, role))


def stepped(*matrices: Matrix, steps: int = 3, lr: float = 0.1, decay: float = 0.3) -> None:
    """Steps of gradients that follow from a parameter's own shape and the step."""
    (other,) = [nn.Parameter(torch.zeros(1))]
    optimizer = MuonWithAdamW(list(matrices), torch.optim.AdamW([other]), lr, decay)
    for step in range(steps):
        for parameter, _ in matrices:
            parameter.grad = numbers(*parameter.shape, role=f"gradient {step}")
        optimizer.step()


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (12, 12)])
def test_the_same_updates_as_torchs_own_but_for_its_precision(shape) -> None:
    ours, theirs = (nn.Parameter(numbers(*shape)) for _ in range(2))
    reference = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.3, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        theirs.grad = numbers(*shape, role=f"gradient {step}")
        reference.step()
    stepped(Matrix(ours))
    change, wanted = (p.detach() - numbers(*shape) for p in (ours, theirs))
    assert (change - wanted).norm() < 0.02 * wanted.norm()  # bfloat16 has 8 bits


def test_singular_values_come_near_one_and_their_vectors_stay() -> None:
    matrices = numbers(4, 9, 5)
    left, values, right = torch.linalg.svd(orthogonalized(matrices), full_matrices=False)
    assert values.min() > 0.6 and values.max() < 1.3
    first, _, last = torch.linalg.svd(matrices, full_matrices=False)
    torch.testing.assert_close(left @ torch.diag_embed(values) @ right, orthogonalized(matrices))
    assert ((first @ last) * orthogonalized(matrices)).sum((1, 2)).min() > 0.9 * 5 * 0.7
    assert torch.equal(orthogonalized(torch.zeros(1, 3, 4)), torch.zeros(1, 3, 4))


def test_stacked_experts_are_orthogonalized_one_by_one() -> None:
    stacked = nn.Parameter(torch.cat([numbers(4, 6)] * 3))
    alone = nn.Parameter(numbers(4, 6))
    others = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    for parameter, pieces, other in ((stacked, 3, others[0]), (alone, 1, others[1])):
        optimizer = MuonWithAdamW([Matrix(parameter, pieces)], torch.optim.AdamW([other]), 0.1, 0.0)
        scales = torch.tensor([1.0, 5.0, 0.2])[:pieces]  # of which nothing is left in the update of an expert
        parameter.grad = torch.cat([scale * numbers(4, 6, role="gradient") for scale in scales])
        optimizer.step()
    torch.testing.assert_close(stacked.detach(), alone.detach().repeat(3, 1))


def test_it_takes_the_matrices_of_attention_and_experts_and_nothing_else() -> None:
    model = build_model(CONFIG, seed=0)
    names = {id(p): name for name, p in model.named_parameters()}
    taken = {names[id(matrix.parameter)]: matrix.pieces for matrix in block_matrices(model)}
    ends = ("q_proj", "k_proj", "v_proj", "out_proj", "experts.W", "experts.V", "experts.W2")
    blocks = CONFIG.depth + CONFIG.decoder_depth
    assert len(taken) == len(ends) * blocks and all(name.removesuffix(".weight").endswith(ends) for name in taken)
    assert {n: c for n, c in taken.items() if c > 1} == {
        **{f"encoder.layers.{i}.moe.experts.W.weight": count for i, count in enumerate(CONFIG.experts)},
        "decoder_layers.0.moe.experts.W.weight": CONFIG.decoder_experts,
    }
    optimizer = optimizer_of(MUON, model, model, CPU)
    everything = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(everything) == len(set(everything)) == len(names)


def a_step() -> TrainStep:
    model = build_model(CONFIG, seed=0).train()
    options = StepOptions(0, LossWeights(0.1, 50.0), 1.0, 0.2, None, SIZE)
    optimizer = optimizer_of(MUON, model, model, CPU)
    return TrainStep(model, optimizer, options, torch.amp.GradScaler("cpu", enabled=False))


def test_rates_and_a_state_that_goes_on_to_the_bit() -> None:
    whole, first, second = a_step(), a_step(), a_step()
    for number in range(4):
        whole(a_batch(number), number, 1e-3 * (number + 1))
        (first if number < 2 else second)(a_batch(number), number, 1e-3 * (number + 1))
        if number == 1:
            second.model.load_state_dict(first.model.state_dict())
            load_optimizer(second.optimizer, first.optimizer.state_dict())
    assert [group["lr"] for group in second.optimizer.param_groups] == pytest.approx([2e-2, 4e-3])
    for ours, theirs in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    step = a_step()
    step(a_batch(), 0, 1e-3)
    before = [p.detach().clone() for p in step.model.parameters()]
    state = {key: value["momentum"].clone() for key, value in step.optimizer.state.items() if "momentum" in value}
    batch = a_batch(1)
    batch.images[0] = float("nan")
    step(batch._replace(valid=torch.ones_like(batch.valid)), 1, 1e-3)
    with pytest.raises(TrainingDiverged, match="at step 1"):
        step.require_finite()
    assert all(torch.equal(p, old) for p, old in zip(step.model.parameters(), before, strict=True))
    assert state and all(torch.equal(step.optimizer.state[key]["momentum"], old) for key, old in state.items())


def test_other_optimizers_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"training\.optimizer"):
        train(training_config(tmp_path, optimizer="sgd"))
