"""The contrastive objective, dense, in tiles, and in a ring over devices."""
