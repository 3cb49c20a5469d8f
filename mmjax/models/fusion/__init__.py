"""Fusion encoders: the tokens of several inputs, each encoded by its own tower -> tokens that have seen each other."""
