"""What recipes of pretraining are worth: a ladder of changes, measured against baselines that need no training."""
