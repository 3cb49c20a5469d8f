"""Writes texts with a text decoder: word by word, sampled or the likeliest, by beams; and scores given ones."""
