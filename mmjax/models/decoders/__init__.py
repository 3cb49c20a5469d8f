"""Decoders: tokens to what was hidden."""
