"""Ports for the servers of tests."""

import contextlib
import random
import socket


def unused_port() -> int:
    """A port of this machine, at random: a test of another worker that asks at the same time gets another one, as it
    would not if both took the first that is free. It is below those that a kernel gives away by itself, for it can be
    seconds until it is taken.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("localhost", port))
            return port
