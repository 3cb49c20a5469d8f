"""Models of other projects, in and out: their names and layouts of the same numbers."""
