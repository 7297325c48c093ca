"""Live play in the browser: a server that walks through a world, and the page it serves.

`docs/play.md` describes the wire protocol for people who write other clients.
"""
