"""Simulators to learn from, and the policies that act in them."""
