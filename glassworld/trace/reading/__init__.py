"""Read the events of a trace file into typed columns."""
