"""Simulated viewers: how well a live server serves many players."""
