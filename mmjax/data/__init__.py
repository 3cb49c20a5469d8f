"""Data: sources, transforms, tokenizers and the pipeline. Nothing here imports jax or touches a device."""
