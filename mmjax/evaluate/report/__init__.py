"""Writes the results of an evaluation as one page of HTML that needs nothing else."""
