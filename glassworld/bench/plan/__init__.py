"""Capacity: how many devices a number of players needs."""
