"""Variables of objectives that are counted in the training split, before a run's first step."""

from dataclasses import replace

import jax

from mmjax.data.pipeline import Prepared
from mmjax.data.split_entry import entry_rows
from mmjax.experiment.definition import Experiment
from mmjax.objectives.demands import Counting
from mmjax.runtime import hosts
from mmjax.train.step import TrainState


def with_counts(state: TrainState, experiment: Experiment, data: Prepared) -> TrainState:
    """The state of a new run with the variables of its `Counting` objectives. They are saved with it: a run that goes
    on counts nothing. Each host counts, all the same.

    Raises UserError as `Counting` does.
    """
    variables = dict(state.model_state)
    for name, objective in experiment.objectives.items():
        if not isinstance(objective, Counting):
            continue
        part, rows = f"objectives_{name}", entry_rows(data, "train", objective.text)
        found = hosts.together(lambda o=objective, n=name, r=rows: o.counted_variables(r, f"objectives.{n}"))
        for collection, arrays in found.items():
            laid = jax.tree.map(lambda old, new: jax.device_put(new, old.sharding), variables[collection][part], arrays)
            variables[collection] = {**variables[collection], part: laid}
    return replace(state, model_state=variables)
