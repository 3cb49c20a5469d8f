"""One process of several: judges a run in every way that there is, and embeds its data.

python -m tests.multiprocess.judge WORKDIR COPY FOLDER
"""

import sys
from pathlib import Path

from mmjax.embed import embed
from mmjax.evaluate import evaluate_model
from mmjax.evaluators.losses import Losses
from mmjax.evaluators.neighbours import KNN
from mmjax.evaluators.probe import Probe
from mmjax.watch import watch

OTHERS = (KNN("shape", "test", k=5), Probe("shape", "test", strengths=(1e-3,), shots=(2,)), Losses("test"))


def judge(workdir: str, copy: str, folder: Path) -> None:
    """Into FOLDER: numbers of the run's own evaluators and of others, a page, embeddings. COPY is watched."""
    evaluators = ["retrieval", "zeroshot", *OTHERS]
    evaluate_model(workdir, evaluators=evaluators, json_path=folder / "test.json", report=folder / "test.html")
    embed(workdir, None, folder / "embeddings", rows=10, batch_size=8)
    watch(copy, evaluators=["retrieval"], poll=0.1)


if __name__ == "__main__":
    judge(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
