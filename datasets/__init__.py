"""Landsat patches: the two published datasets, their simulated twins, and batches of either."""
