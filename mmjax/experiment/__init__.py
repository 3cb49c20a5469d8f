"""Experiments: everything in an experiment file beside its model, its data and its optimiser.

    from mmjax.experiment import Experiment, Mesh, experiment

The names are imported when they are first asked for. Those that are classes of fields may be in an experiment's
record: constructing one with any arguments whatever reads, writes and runs nothing.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from mmjax.experiment.definition import Experiment, Load, Spike
    from mmjax.experiment.graph import build
    from mmjax.experiment.load import experiment, load_experiment
    from mmjax.runtime.mesh import Mesh
    from mmjax.runtime.retention import Best
