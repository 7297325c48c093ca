"""The engine: load a world, generate its blocks, run its sessions."""
