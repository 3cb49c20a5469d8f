"""Reads and writes checkpoints of other projects: their names and layouts of the same parameters."""
