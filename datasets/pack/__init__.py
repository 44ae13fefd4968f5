"""A packed dataset: its format, how it is written and resumed."""
