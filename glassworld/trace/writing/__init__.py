"""Write traces in the formats of other viewers, and as tables that one can query."""
