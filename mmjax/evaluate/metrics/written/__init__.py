"""Metrics of texts that a model writes: captions, answers, language and dialogue."""
