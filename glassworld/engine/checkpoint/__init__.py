"""Worlds as files: how they are named, found, read and written."""
