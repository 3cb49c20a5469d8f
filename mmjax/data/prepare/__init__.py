"""Cuts a folder of videos into segments once, so that training reads pictures and sounds instead of decoding videos."""
