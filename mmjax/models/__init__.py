"""Encoders and decoders: inputs to tokens and embeddings."""
