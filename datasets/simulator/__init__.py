"""Simulated Landsat patches and scenes: landscapes, spectra, sensors."""
