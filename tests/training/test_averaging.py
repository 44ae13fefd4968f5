"""The moving average of the weights, by hand and in a step; in a run: test_prolonging.py."""

import torch
from tiny_step import CONFIG, a_batch, a_step

from models import build_model
from training.averaging import WeightAverage


def test_by_hand() -> None:
    model = build_model(CONFIG, seed=0)
    average = WeightAverage(model, decay=0.4)
    first = model.mask_token.detach().clone()
    expected = first.clone()
    for step, decay in enumerate((0.1, 2 / 11, 0.25, 4 / 13, 5 / 14, 0.4, 0.4)):
        with torch.no_grad():
            model.mask_token.add_(1.0)
        average.update(torch.tensor(float(step)))
        expected = decay * expected + (1 - decay) * (first + step + 1)
        torch.testing.assert_close(average.model.mask_token, expected)
    assert not average.model.training and not any(p.requires_grad for p in average.model.parameters())


def test_a_step_is_taken_in_and_the_weights_are_those_without_it() -> None:
    plain, averaged = a_step(), a_step()
    averaged.average = WeightAverage(averaged.model, decay=0.9)
    before = [p.detach().clone() for p in plain.model.parameters()]
    for step in (plain, averaged):
        step(a_batch(), 0, 1e-2)
    parts = zip(
        before, plain.model.parameters(), averaged.model.parameters(), averaged.average.model.parameters(), strict=True
    )
    for old, now, same, mean in parts:
        assert torch.equal(now, same)
        torch.testing.assert_close(mean, 0.1 * old + 0.9 * now.detach())
