"""Layers: what towers and decoders are made of."""
