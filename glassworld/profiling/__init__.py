"""Tags woven through the engine, and the capture that turns them into a trace."""
