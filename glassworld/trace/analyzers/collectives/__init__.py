"""The collectives of a program on several ranks: their bandwidth, and who arrives late."""
