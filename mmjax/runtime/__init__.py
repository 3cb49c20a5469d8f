"""Devices, hosts, checkpoints and metrics of a run."""
