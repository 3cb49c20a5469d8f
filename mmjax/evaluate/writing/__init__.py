"""Writes texts with a text decoder: word by word, drawn or the likeliest, by beams; and scores given ones."""
