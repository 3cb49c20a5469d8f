"""One process of several: judges a run in every way that there is, embeds its data, and is refused what can't be.

python -m tests.multiprocess.judge WORKDIR COPY FOLDER TABLE
"""

import contextlib
import io
import json
import sys
import time
from pathlib import Path

from mmjax.cli.main import main
from mmjax.evaluate.evaluators.knn import KNN
from mmjax.evaluate.evaluators.losses import Losses
from mmjax.evaluate.evaluators.probe import Probe
from mmjax.evaluate.model import evaluate_model
from mmjax.evaluate.watch import watch
from mmjax.inference.embed_dataset import embed
from mmjax.runtime import hosts
from tests.trained import COUPLE

OTHERS = (KNN("shape", "test", k=5), Probe("shape", "test", strengths=(1e-3,), shots=(2,)), Losses("test"))


def judge(workdir: str, copy: str, folder: Path) -> None:
    """Into FOLDER: numbers of the run's own evaluators and of others, a page, embeddings. COPY is watched."""
    evaluators = ["retrieval", "zeroshot", *OTHERS]
    evaluate_model(workdir, evaluators=evaluators, json_path=folder / "test.json", report=folder / "test.html")
    embed(workdir, None, folder / "embeddings", rows=10, batch_size=8)
    watch(copy, evaluators=["retrieval"], poll=0.1)


def refused(workdir: Path, table: str, *overrides: str) -> dict:
    """How `mmjax train` ends in this process: its exit code, its complaint, and the seconds that it took."""
    told, began = io.StringIO(), time.monotonic()
    words = ("train", COUPLE, "--workdir", str(workdir), f"data.sources.shapes.table={table}", *overrides)
    with contextlib.redirect_stderr(told):
        code = main([*words])
    return {"code": code, "told": told.getvalue(), "seconds": time.monotonic() - began}


def judge_and_ask(workdir: str, copy: str, folder: Path, table: str) -> int:
    """Judges, and asks for what is refused: the answers by name go into FOLDER/<index>.json. The last one's exit code
    is the process's own."""
    judge(workdir, copy, folder)
    answers = {
        "missing data": refused(folder / "new", "nowhere.csv"),
        "another experiment": refused(Path(copy), table, "optimizer.peak_lr=0.5"),
    }
    (folder / f"{hosts.host()[0]}.json").write_text(json.dumps(answers))
    return answers["another experiment"]["code"]


if __name__ == "__main__":
    sys.exit(judge_and_ask(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4]))
