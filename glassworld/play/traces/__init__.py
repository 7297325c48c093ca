"""Traces of live play: captures that a player asks for, and their files."""
