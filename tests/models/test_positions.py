"""Position embeddings before training."""

import torch
from tiny import tiny_model


def test_neighbours_are_alike_and_nothing_else_changes() -> None:
    plain, waves = tiny_model(position_std=0.5), tiny_model(position_std=0.5, position_start="sincos")
    for name, value in plain.state_dict().items():
        same = torch.equal(value, waves.state_dict()[name])
        assert same is not name.endswith("pos_embed"), name
    encoder = waves.encoder.pos_embed[0]
    assert torch.equal(encoder[:5], plain.encoder.pos_embed[0, :5])  # metadata and CLS
    for patches in (encoder[5:], waves.decoder_pos_embed[0]):
        assert abs(patches.square().mean().sqrt().item() - 0.5) < 0.02
        alike = torch.nn.functional.normalize(patches, dim=1) @ torch.nn.functional.normalize(patches[44], dim=0)
        assert alike[[45, 43, 54, 34]].min() > alike[[49, 40, 94, 4]].max()
        assert len(patches.unique(dim=0)) == 100
    assert "position_start" not in plain.config.to_dict()
