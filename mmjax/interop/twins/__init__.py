"""The same model in another project: what is written there, and whether it computes the same."""
