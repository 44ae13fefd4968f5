"""Fetching a published dataset: from the hub to a checked folder."""
