"""Evaluators: embeddings to numbers."""
