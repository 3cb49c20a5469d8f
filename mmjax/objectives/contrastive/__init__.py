"""The contrastive objective: its loss dense, in tiles, and in a ring over devices."""
