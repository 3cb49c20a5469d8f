"""big_vision's checkpoints."""
