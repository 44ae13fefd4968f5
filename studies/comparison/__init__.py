"""Encoders compared with baselines and with published scores."""
