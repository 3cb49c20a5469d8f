"""The runtime holds a run's devices, hosts, checkpoints, metrics and lock, and safe reading and writing of files."""
