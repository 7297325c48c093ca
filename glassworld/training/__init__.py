"""Training of worlds and their evaluation against the simulator."""
