"""Encoders beside baselines and beside published scores."""
