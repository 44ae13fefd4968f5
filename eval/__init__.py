"""What a model is worth: reconstruction against honest baselines, and what its experts do."""
