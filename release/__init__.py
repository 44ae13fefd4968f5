"""From a checkpoint to files that others can use: weights without pickle, programs without this project."""
