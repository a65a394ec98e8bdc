"""Models that ship with mmedge: data, and the numpy programs that drew what they learned from."""
