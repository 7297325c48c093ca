"""How well the engine chooses its number of threads, on an idle and on a busy machine."""
