"""Inference: a checkpoint as a model that embeds and classifies."""
