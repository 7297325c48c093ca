"""The check of a GPU at the released size, section by section."""
