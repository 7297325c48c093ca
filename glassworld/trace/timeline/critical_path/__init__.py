"""The dependencies between CPU threads and GPU streams, and the chain that bounds a run."""
