"""MERLOT Reserve's released checkpoints."""
