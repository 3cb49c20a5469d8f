"""The dataset `spoken_emoji`: pictures of emoji, their names, and the names spoken."""
