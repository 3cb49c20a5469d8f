"""Other projects' packages import torchvision, of which pip may bring a build for another torch."""

import importlib.util

if importlib.util.find_spec("torch"):
    from tests.benchmarks.step_sides import allow_any_torchvision

    allow_any_torchvision()
