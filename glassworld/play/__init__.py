"""Live play in the browser: the server that generates the frames, and the page it serves.

`docs/reference/protocol.md` documents the wire protocol for authors of other clients.
"""
