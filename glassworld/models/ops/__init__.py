"""Building blocks that all networks share."""
