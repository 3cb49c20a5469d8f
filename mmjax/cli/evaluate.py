"""`mmjax evaluate`: judge a checkpoint."""

import argparse

HELP = "judge a checkpoint"
EPILOG = """\
examples:
  mmjax evaluate runs/quickstart
  mmjax evaluate runs/quickstart --split test --json test.json
  mmjax evaluate runs/quickstart --step 500 --evaluators retrieval
  mmjax evaluate runs/clip --on cifar100 --evaluators zeroshot knn
  mmjax evaluate hf:google/siglip-base-patch16-224 --on imagenet2012 --json siglip.json
  mmjax evaluate runs/clip --on photos.csv                        # a table of pictures, captions, sounds
  mmjax evaluate runs/quickstart --report report.html             # a page with curves, examples, confusions, a map
  mmjax evaluate runs/quickstart --watch                          # beside a run: each new checkpoint, to its end
"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a workdir, a folder of a model, or a name (as mmjax.load)")
    parser.add_argument("--split", help="train, validation or test (default: what each evaluator says)")
    parser.add_argument("--step", type=int, help="which checkpoint (default: the latest)")
    parser.add_argument("--evaluators", metavar="NAME", nargs="+", help="only these")
    parser.add_argument("--on", metavar="DATA", help="another dataset than its own: a benchmark's name, or a table")
    parser.add_argument("--data-dir", metavar="DIR", help="where that is (default: $TFDS_DATA_DIR)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers to a file")
    parser.add_argument("--report", metavar="FILE.html", help="write a page with numbers, curves and examples")
    parser.add_argument("--watch", action="store_true", help="judge each new checkpoint, until the run has ended")
    parser.add_argument("--poll", metavar="SECONDS", type=seconds, default=30.0, help="between two looks (default: 30)")


def seconds(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def run(arguments: argparse.Namespace) -> None:
    if arguments.watch:
        alone = [name for name in ("step", "json", "report", "on") if getattr(arguments, name) is not None]
        if alone:
            from mmjax.errors import UserError

            raise UserError(f"--watch judges every checkpoint: leave out --{alone[0]}")
        from mmjax.watch import watch

        watch(arguments.model, split=arguments.split, evaluators=arguments.evaluators, poll=arguments.poll)
        return
    from mmjax.evaluate import evaluate_model

    evaluate_model(
        arguments.model,
        split=arguments.split,
        step=arguments.step,
        evaluators=arguments.evaluators,
        on=arguments.on,
        data_dir=arguments.data_dir,
        json_path=arguments.json,
        report=arguments.report,
    )
