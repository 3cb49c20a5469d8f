"""`mmjax evaluate`: judge a checkpoint."""

import argparse

from mmjax.cli import add_code
from mmjax.cli.metric_help import told_families
from mmjax.errors import UserError
from mmjax.runtime.metric_families import EVALUATION

HELP = "judge a checkpoint"
EPILOG = """\
examples:
  mmjax evaluate runs/quickstart
  mmjax evaluate runs/quickstart --split test --json test.json
  mmjax evaluate runs/quickstart --step 500 --evaluators retrieval
  mmjax evaluate runs/clip --on cifar100 --evaluators zeroshot knn
  mmjax evaluate hf:google/siglip-base-patch16-224 --on imagenet2012 --json siglip.json
  mmjax evaluate --published --on imagenet2012                    # what others measured, and how to repeat it
  mmjax evaluate runs/clip --on photos.csv                        # a table of pictures, captions, sounds; all its rows
  mmjax evaluate hf:openai/clip-vit-base-patch32 --on photos.csv --label kind --templates "a photo of a {}"
  mmjax evaluate runs/quickstart --report report.html             # a page with curves, examples, confusions, a map
  mmjax evaluate --embeddings emb/test emb/train --label group    # what mmjax embed wrote, without the model
  mmjax evaluate runs/quickstart --watch                          # beside a run: each new checkpoint, to its end
  mmjax evaluate runs/own --code own.py                           # a run with parts of one's own, which own.py defines
  mmjax evaluate runs/albef --rerank 128                          # retrieval, re-ranked by the model's Matching

benchmarks for --on: imagenet2012, imagenet_v2, imagenet_a, imagenet_r, imagenet_sketch, cifar100, oxford_iiit_pet,
coco_captions, speech_commands, esc50. Those that need TensorFlow to build (coco_captions, speech_commands) are built
once by `mmjax prepare NAME` with pip install "mmjax[tf]", on any machine; reading them needs none. A table has columns
image, text or audio, and any labels; all its rows are judged, unless --split narrows them.

Retrieval follows the protocol of COCO and Flickr30k: rows that hold the same picture (or sound) are one candidate, each
caption is one, and a picture is found by any of its captions. Ties and NaN count against the model. The published
number of a known model and benchmark stands beside the measured one, with its source and the difference.

--rerank K takes the towers' first K candidates of each query, and puts them in the order of the probability that both
belong together, as a Matching objective finds by the fusion (K pairs of the fusion a query, in both directions). Beside
the recall stands the gain over the towers alone.

--report writes one page that needs nothing else: numbers, curves, the best, worst and random retrievals with their
pictures and sounds, similarity maps, confusion matrices, what words look at where a fusion reads them with pictures,
and a map of the embeddings. --watch needs only the workdir on
a shared disk; its numbers join the run's own (evaluations.jsonl, TensorBoard, `mmjax checkpoints`, keep_best).
--embeddings takes a folder of each split, and runs a benchmark's own evaluators but for prompts, or Retrieval, and KNN
and Probe for the columns named by --label.

what the numbers are, in tables, --json and the lines of metrics.jsonl that have a split (shares are from 0 to 1):
"""
EPILOG += told_families(EVALUATION)


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="a workdir, a folder of a model, or a name (as mmjax.load)"
    )
    parser.add_argument(
        "--split", help="train, validation or test (default: what each evaluator says; of a table all rows)"
    )
    parser.add_argument("--step", type=int, help="which checkpoint (default: the latest)")
    add_code(parser)
    parser.add_argument("--evaluators", metavar="NAME", nargs="+", help="only these")
    parser.add_argument("--on", metavar="DATA", help="another dataset than its own: a benchmark's name, or a table")
    parser.add_argument("--data-dir", metavar="DIR", help="where that is (default: $TFDS_DATA_DIR)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers to a file")
    parser.add_argument("--report", metavar="FILE.html", help="write a page with numbers, curves and examples")
    parser.add_argument(
        "--embeddings", metavar="DIR", nargs="+", help="judge what mmjax embed wrote, without the model"
    )
    parser.add_argument(
        "--label",
        metavar="COLUMN",
        nargs="+",
        help="of a table: what prompts are to find; with --embeddings: what KNN and Probe are to find",
    )
    parser.add_argument(
        "--templates",
        metavar="TEXT",
        nargs="+",
        help="with --label: prompts with {} for the label, or a list's name (clip7, clip18, clip80)",
    )
    parser.add_argument(
        "--rerank",
        metavar="K",
        type=int,
        help="of a model with a Matching: put the towers' first K candidates in its order (128, say)",
    )
    parser.add_argument("--published", action="store_true", help="list published numbers, with the commands for them")
    parser.add_argument("--watch", action="store_true", help="judge each new checkpoint, until the run has ended")
    parser.add_argument(
        "--poll", metavar="SECONDS", type=_seconds, default=30.0, help="between two looks (default: 30)"
    )


def _seconds(text: str) -> float:
    """Parses a number above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    if arguments.published:
        _alone(arguments, "--published lists what others measured", "split", "step", "evaluators", "data_dir", "report",
               "label", "templates", "rerank")  # fmt: skip
        _list_published(arguments)
        return
    if arguments.embeddings is not None:
        _alone(
            arguments,
            "--embeddings needs no model and no data",
            "model",
            "step",
            "on",
            "data_dir",
            "report",
            "templates",
            "rerank",
        )
        from mmjax.evaluate.from_embeddings import evaluate_embeddings

        evaluate_embeddings(
            arguments.embeddings,
            labels=arguments.label or (),
            split=arguments.split,
            evaluators=arguments.evaluators,
            json_path=arguments.json,
        )
        return
    if arguments.on is None:
        _alone(arguments, "a run's own evaluators know their labels (a table's are given with --on TABLE)", "label",
               "templates")  # fmt: skip
    if arguments.model is None:
        raise UserError("what is to be judged? mmjax evaluate MODEL: a workdir, a folder of a model, or a name")
    if arguments.watch:
        _alone(arguments, "--watch judges every checkpoint", "step", "json", "report", "on", "rerank")
        from mmjax.evaluate.watch import watch

        watch(
            arguments.model,
            split=arguments.split,
            evaluators=arguments.evaluators,
            code=arguments.code,
            poll=arguments.poll,
        )
        return
    from mmjax.evaluate.model import evaluate_model

    evaluate_model(
        arguments.model,
        split=arguments.split,
        step=arguments.step,
        code=arguments.code,
        evaluators=arguments.evaluators,
        on=arguments.on,
        data_dir=arguments.data_dir,
        labels=arguments.label or (),
        templates=arguments.templates or (),
        rerank=arguments.rerank,
        json_path=arguments.json,
        report=arguments.report,
    )


def _alone(arguments: argparse.Namespace, why: str, *options: str) -> None:
    """Raises UserError where one of the options was given."""
    given = [name for name in options if getattr(arguments, name) is not None]
    if given:
        raise UserError(f"{why}: leave out {'MODEL' if given[0] == 'model' else '--' + given[0].replace('_', '-')}")


def _list_published(arguments: argparse.Namespace) -> None:
    import json

    from mmjax.evaluate import published
    from mmjax.runtime.files import output

    output.check_writable(arguments.json)
    rows = published.listing(arguments.model, arguments.on)
    print("\n".join(published.lines(rows)))
    if arguments.json is not None:
        output.write(arguments.json, json.dumps(rows, indent=2) + "\n")
