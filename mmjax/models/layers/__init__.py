"""Layers of towers and decoders: attention, transformer blocks, positions, pooling, norms."""
