"""Pixels as stored to pixels as the model wants them."""
