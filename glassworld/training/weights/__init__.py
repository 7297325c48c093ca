"""Initial weights from earlier worlds."""
