"""Metrics and evaluation of trained worlds."""
