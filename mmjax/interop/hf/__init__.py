"""Hugging Face's folders: configurations, weights, tokenizers and preprocessing."""
