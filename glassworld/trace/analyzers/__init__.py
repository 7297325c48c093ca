"""Answer questions about a run from the analysis of its trace."""
