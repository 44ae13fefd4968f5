"""Evaluation of a model: reconstruction and probes against baselines, and what its experts do."""
