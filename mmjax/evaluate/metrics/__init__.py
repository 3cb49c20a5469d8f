"""Metrics: what several evaluators compute."""
