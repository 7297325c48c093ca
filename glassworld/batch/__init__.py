"""Lists of jobs turned into videos, by one process, several, or a cluster."""
