"""The player's input, and files of it."""
