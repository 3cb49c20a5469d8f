"""Lists the changes of an experiment that a workdir may be resumed with."""

import fiddle as fdl

from mmjax.experiment.diff import Difference, diff


def unresumable(recorded: fdl.Config, wanted: fdl.Config) -> list[Difference]:
    """The differences for which a run of `wanted` may not go on in a workdir of `recorded`; see `MAY_CHANGE`."""

    def harmless(path: str) -> bool:
        parts = path.split(".")
        for pattern in MAY_CHANGE:
            names = pattern.split(".")
            if len(parts) >= len(names) and all(n in ("*", part) for n, part in zip(names, parts, strict=False)):
                return True
        return False

    return [difference for difference in diff(recorded, wanted) if not harmless(difference.path)]


# Fields that may differ when a workdir is resumed: none of them changes what a step computes, except for rounding.
# `steps`
# isn't here: the learning rate at any step depends on it. Neither is `init`: it says where the parameters come from.
MAY_CHANGE: dict[str, str] = {
    "mesh": "the same losses on other devices; a run moves to the machines that are free",
    "microbatches": "accumulation is exact; a smaller machine needs more of them",
    "towers.*.blocks.remat": "recomputes instead of storing, the same numbers",
    "towers.*.trunk.blocks.remat": "as above",
    "towers.*.early.remat": "as above",
    "towers.*.remat": "as above, of a ResNet",
    "objectives.*.decoder.blocks.remat": "as above",
    "fusions.*.blocks.remat": "as above",
    "fusions.*.trunk.blocks.remat": "as above",
    "towers.*.blocks.unroll": "as above; the compiled loop's turns",
    "towers.*.trunk.blocks.unroll": "as above",
    "towers.*.early.unroll": "as above",
    "objectives.*.decoder.blocks.unroll": "as above",
    "fusions.*.blocks.unroll": "as above",
    "fusions.*.trunk.blocks.unroll": "as above",
    "towers.*.blocks.attention": "another kernel, the same numbers to their precision",
    "towers.*.trunk.blocks.attention": "as above",
    "towers.*.early.attention": "as above",
    "objectives.*.decoder.blocks.attention": "as above",
    "fusions.*.blocks.attention": "as above",
    "fusions.*.trunk.blocks.attention": "as above",
    "data.workers": "the stream is the same for any number of them",
    "data.prefetch": "as above",
    "data.cache": "as above",
    "data.sources.*.data_dir": "the same data at another place",
    "data.sources.*.root": "the same data at another place",
    "evaluators": "look at the model, never change it",
    "evaluate_every": "as above",
    "log_every": "only what is written",
    "save_every": "only what is written",
    "most_bad_steps": "only when it stops",
    "most_bad_examples": "as above",
    "patience": "as above",
    "save_minutes": "only what is written",
    "keep": "only what is written",
    "keep_best": "only what is written",
    "keep_every": "only what is written",
}
