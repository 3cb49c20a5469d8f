"""Loads a checkpoint as a model that embeds and classifies, and embeds datasets with it."""
