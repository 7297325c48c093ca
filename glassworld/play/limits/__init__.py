"""Limits on what a client can cost the server: its connection, its images, its lines in the log."""
