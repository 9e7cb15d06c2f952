"""Measurements, each a ratio against the raw library or client in the same run."""
