"""Ablation studies: each changes one setting of the recipe at a time."""
