"""One process of several: judges a run in every way that there is, and embeds its data.

python -m tests.multiprocess.judge WORKDIR COPY FOLDER
"""

import sys
from pathlib import Path

from mmjax.evaluate.evaluators.knn import KNN
from mmjax.evaluate.evaluators.losses import Losses
from mmjax.evaluate.evaluators.probe import Probe
from mmjax.evaluate.model import evaluate_model
from mmjax.evaluate.watch import watch
from mmjax.inference.embed_dataset import embed

OTHERS = (KNN("shape", "test", k=5), Probe("shape", "test", strengths=(1e-3,), shots=(2,)), Losses("test"))


def judge(workdir: str, copy: str, folder: Path) -> None:
    """Into FOLDER: numbers of the run's own evaluators and of others, a page, embeddings. COPY is watched."""
    evaluators = ["retrieval", "zeroshot", *OTHERS]
    evaluate_model(workdir, evaluators=evaluators, json_path=folder / "test.json", report=folder / "test.html")
    embed(workdir, None, folder / "embeddings", rows=10, batch_size=8)
    watch(copy, evaluators=["retrieval"], poll=0.1)


if __name__ == "__main__":
    judge(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
