"""Pieces of a report: figures, sections, verdicts."""
