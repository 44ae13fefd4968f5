"""The linear probe: embedding files in, an L2 logistic regression and its scores out."""
