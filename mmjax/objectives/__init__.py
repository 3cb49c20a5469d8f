"""Objectives: a batch to a loss."""
