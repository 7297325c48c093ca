"""Collected episodes, their latents, and batches of both."""
