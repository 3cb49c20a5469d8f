"""`mmjax plan`: whether it fits on a pod, and how fast it is."""

import argparse

from mmjax.cli import add_code
from mmjax.errors import UserError

HELP = "whether it fits on a pod or on GPUs, and how fast it is"
EPILOG = """\
examples:
  mmjax plan experiments/siglip.py --topology v5e:16x16
  mmjax plan experiments/siglip.py --topology v5e:16x16 --slices 2 batch_size=65536
  mmjax plan experiments/clip.py:vit_l14 --topology v5e:8x8,v5e:8x16,v5e:16x16 --picture scaling.png --json plan.json
  mmjax plan experiments/clip.py:vit_l14 --topology h100:8,h100:4x8,b200:8   # GPUs of a host; of 4 hosts of 8
  mmjax plan experiments/clip.py:tiny --topology cpu:8                       # this machine; needs no TPU compiler
  mmjax plan experiments/siglip.py --topology v5e:16x16 --tune               # the fastest mesh, remat, microbatches

The train step is compiled for a pod that need not be there (pip install "jax[tpu]"; for a100, h100, h200 and b200
pip install "jax[cuda13]"), a minute or more for each topology. Bytes and collectives are the compiler's. The time of a
step is a roofline's: products at the chip's peak, after them all else at the speed of its memory, the network beside
both. For GPUs it is that of the compiled schedule: each kernel by its bytes or its products at the shares of the data
sheet that were measured on an H200, and of the collectives what nothing hides. It is a guide to compare by, not a
promise: on a GPU nothing is autotuned. It prints memory by part, collectives, a GPU's kernels by class, the time of a
step, what each host must read, chip-hours, and, where the step doesn't fit, what would make it fit. --tune compiles
other settings too, one knob at a time from the best so far, and prints all of them, and the fastest to be pasted.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("experiment", metavar="FILE[:NAME]", help="an experiment, or a workdir's")
    parser.add_argument("overrides", metavar="PATH=VALUE", nargs="*", help="a value to set, microbatches=4")
    parser.add_argument(
        "--topology", metavar="NAME", required=True, help="v5e:16x16, h100:8, or several: v5e:8x8,v5e:16x16"
    )
    add_code(parser)
    parser.add_argument("--slices", metavar="N", type=int, default=1, help="of that topology each (default: 1)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers to a file")
    parser.add_argument("--picture", metavar="FILE", help="draw memory and speed as a PNG")
    parser.add_argument("--tune", action="store_true", help="try other meshes, remat, loops, microbatches")
    parser.add_argument("--tries", metavar="N", type=int, help="settings that --tune compiles at most (default: 16)")
    parser.add_argument("--no-remedies", action="store_true", help="where it doesn't fit, don't try what would")


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    import jax

    names = arguments.topology.split(",")
    devices = max((int(name[4:]) for name in names if name.startswith("cpu:") and name[4:].isdecimal()), default=1)
    jax.config.update("jax_platforms", "cpu")  # leaves this machine's TPU or GPU free for others
    jax.config.update("jax_num_cpu_devices", max(1, devices))

    from mmjax.experiment.load import experiment_name, load_experiment

    config = load_experiment(arguments.experiment, arguments.overrides, arguments.code)
    if arguments.tries is not None and not arguments.tune:
        raise UserError(f"--tries {arguments.tries} goes with --tune")
    if arguments.tune:
        from mmjax.train.plan.tune import MOST_COMPILED, tune_topologies

        if arguments.picture is not None:
            raise UserError("--picture draws topologies, not what --tune tries: leave one of them out")
        tune_topologies(
            config,
            names,
            slices=arguments.slices,
            name=experiment_name(arguments.experiment, arguments.code),
            given=arguments.overrides,
            most=MOST_COMPILED if arguments.tries is None else arguments.tries,
            json_path=arguments.json,
        )
        return

    from mmjax.train.plan.plan import plan_topologies

    plan_topologies(
        config,
        names,
        slices=arguments.slices,
        name=experiment_name(arguments.experiment, arguments.code),
        remedies=not arguments.no_remedies,
        json_path=arguments.json,
        picture=arguments.picture,
    )
