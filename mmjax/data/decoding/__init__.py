"""Decoding: files and bytes of pictures and sounds to arrays."""
