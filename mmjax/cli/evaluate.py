"""`mmjax evaluate`: judge a checkpoint."""

import argparse

HELP = "judge a checkpoint"
EPILOG = """\
examples:
  mmjax evaluate runs/quickstart
  mmjax evaluate runs/quickstart --split test --json test.json
  mmjax evaluate runs/quickstart --step 500 --evaluators retrieval
"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", metavar="WORKDIR", help="the workdir of a run")
    parser.add_argument("--split", help="train, validation or test (default: what each evaluator says)")
    parser.add_argument("--step", type=int, help="which checkpoint (default: the latest)")
    parser.add_argument("--evaluators", metavar="NAME", nargs="+", help="only these of the experiment's")
    parser.add_argument("--json", metavar="FILE", help="write the numbers to a file")
    parser.add_argument("--report", metavar="FILE.html", help="write a page with numbers, curves and examples")


def run(arguments: argparse.Namespace) -> None:
    from mmjax.evaluate import evaluate_workdir

    evaluate_workdir(
        arguments.workdir,
        split=arguments.split,
        step=arguments.step,
        evaluators=arguments.evaluators,
        json_path=arguments.json,
        report=arguments.report,
    )
