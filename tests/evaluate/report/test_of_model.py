"""The page of a real run, by the command."""

import json
import re
from html import unescape
from types import SimpleNamespace

import numpy as np
import pytest

from mmjax.cli.main import main
from mmjax.data.chains import Chains
from mmjax.data.transforms.audio import CropOrPad, DecodeAudio
from mmjax.evaluate.evaluators.retrieval import Retrieval
from mmjax.evaluate.report.of_model import collectors
from mmjax.runtime import metrics
from tests.evaluate.report.made import made
from tests.trained import Trained


def test_a_page_knows_how_much_of_a_sound_its_model_hears():
    silent = SimpleNamespace(chains=Chains({}))
    heard = SimpleNamespace(chains=Chains({"voice": (DecodeAudio(8_000), CropOrPad(20_000))}))
    for data, seconds in ((silent, {}), (heard, {"voice": 2.5})):
        (collector,) = collectors([Retrieval(split="test")], data)  # pyright: ignore[reportArgumentType]
        collector(made().embedded, lambda texts: np.zeros((0, 8), np.float32))
        assert collector.kept[0].heard == seconds


def test_the_command_writes_the_page_of_a_run(trained: Trained, tmp_path, capsys):
    path, numbers = tmp_path / "report.html", tmp_path / "numbers.json"
    assert (
        main(["evaluate", str(trained.workdir), "--split", "test", "--report", str(path), "--json", str(numbers)]) == 0
    )
    html = path.read_text()
    found = json.loads(numbers.read_text())["test"]
    logged = next(line for line in metrics.read(trained.workdir) if line.get("split") == "test")
    assert {name: found[name] for name in logged if "/" in name} == pytest.approx(
        {name: value for name, value in logged.items() if "/" in name}
    )  # the page changes no number
    said = capsys.readouterr().out
    table = re.search(r"zeroshot/shape\D+([\d.]+)", said)
    assert table is not None
    assert f"<td>{table[1]}" in html
    assert "experiment</dt><dd>tests/tiny.py:tiny" in html
    assert "step 24 of 24, batches of 16" in html
    assert re.search(r"24 examples: [^<]*22 sounds", html)
    assert html.count('<details class="direction"') == 6
    assert "a red disc" in html
    assert 'id="audio-0-' in html
    assert re.search(r'<h3>zeroshot/shape<span class="soft"> · \d+ of 24 right; 4 classes', html)
    again = re.search(r"<dt>again by</dt><dd>(.*?)</dd>", html)
    assert again is not None
    assert unescape(again[1]) == f"mmjax evaluate {trained.workdir} --step 24 --report {path}"


def test_a_page_that_cannot_be_written_is_refused_before_the_work(trained: Trained, tmp_path, capsys):
    assert main(["evaluate", str(trained.workdir), "--report", str(tmp_path / "no" / "report.html")]) == 2
    assert "report.html can't be written: there is no folder" in capsys.readouterr().err
