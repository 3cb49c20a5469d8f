"""Transforms: one record after another to the arrays of a batch."""
