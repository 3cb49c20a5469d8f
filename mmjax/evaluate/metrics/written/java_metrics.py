"""METEOR and SPICE, which are Java programs, where they are installed."""

import shutil
import subprocess
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.evaluate.metrics.written.ngrams import check_references

PROGRAMS = {"meteor": "Meteor", "spice": "Spice"}  # a module of pycocoevalcap, and its class


class JavaScores(NamedTuple):
    """Scores by program, `meteor` and `spice`, as fractions: of the corpus, and of each text.

    left_out: a line for people about what is missing, and why; "" where nothing is.
    """

    corpus: dict[str, float]
    examples: dict[str, Float[np.ndarray, " n"]]
    left_out: str


def java_metrics(
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    programs: Sequence[str] = tuple(PROGRAMS),
) -> JavaScores:
    """METEOR 1.5 and SPICE 1.0 of texts that are cut into words, by the programs that pycocoevalcap brings; whichever
    doesn't run is left out, and the reason is given.

    SPICE downloads a parser when it first runs, and takes minutes for thousands of captions and 8 GB of memory.

    Raises UserError where a text lacks references, or is a string.
    """
    check_references(hypotheses, references)
    if shutil.which("java") is None:
        return JavaScores({}, {}, f"{' and '.join(programs)} left out: there is no program `java` here")
    written = {row: [" ".join(words)] for row, words in enumerate(hypotheses)}
    given = {row: [" ".join(words) for words in texts] for row, texts in enumerate(references)}
    corpus, examples, missing = {}, {}, []
    for name in programs:
        try:
            scorer = getattr(import_module(f"pycocoevalcap.{name}.{name}"), PROGRAMS[name])()
            score, each = scorer.compute_score(given, written)
        except ImportError:
            missing.append(f"{name} left out: pip install pycocoevalcap")
        except (OSError, ValueError, subprocess.SubprocessError) as error:  # no network, no memory, another Java
            missing.append(f"{name} left out: {type(error).__name__}: {' '.join(str(error).split())}")
        else:
            corpus[name], examples[name] = float(score), np.array([_number(one) for one in each])
    return JavaScores(corpus, examples, "; ".join(missing))


def _number(score: Any) -> float:
    return float(score["All"]["f"] if isinstance(score, dict) else score)  # SPICE tells its parts too
