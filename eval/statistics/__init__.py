"""Confidence intervals, permutation tests and spatial blocks."""
