"""Reproduction: pretraining, evaluation and ablation studies in cached stages, compared with published results."""
