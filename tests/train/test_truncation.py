"""What the model never reads of texts and sounds is in the metrics, and said before the first step."""

import re

import numpy as np
import pytest

from mmjax.data.cuts import Lengths
from mmjax.data.pipeline import examples, prepare
from mmjax.experiment.graph import build
from mmjax.experiment.workdir import prepared
from mmjax.runtime import metrics
from mmjax.runtime.mesh import Mesh
from mmjax.train import truncation
from mmjax.train.truncation import Truncated, warnings
from tests.tiny import RATE, SAMPLES
from tests.trained import Trained, tiny_config

WORDS = 8  # tokens that the tiny experiment reads, with the one that ends a text


def test_the_metrics_have_the_share_of_each_line_s_own_batch(trained: Trained):
    experiment = build(tiny_config(trained.table))
    data = prepared(experiment.data, trained.workdir)
    tokenizer, records = data.chains.tokenizers["text"], data.open("train")["shapes"]
    texts = {records[i]["id"]: records[i]["text"] for i in range(len(records))}
    longer = {name: len(tokenizer.encode(text)) + 1 > WORDS for name, text in texts.items()}
    lines = [line for line in metrics.read(trained.workdir) if "split" not in line]
    assert [line["step"] for line in lines] == [1, 5, 10, 15, 20, 24]
    for line in lines:
        drawn = examples(data, batch_size=16, seed=0, step=line["step"] - 1)
        share = np.mean([longer[name] for _, name in drawn])
        assert line["truncated/shapes"] == line["truncated/shapes/text"] == share
        assert "truncated/shapes/audio" not in line  # none is
    assert 0 < np.mean(list(longer.values())) < 1


def test_texts_that_are_cut_are_said_with_what_would_hold_them(trained: Trained):
    experiment = build(tiny_config(trained.table))
    data = prepared(experiment.data, trained.workdir)
    tokenizer, records = data.chains.tokenizers["text"], data.open("train")["shapes"]
    lengths = sorted(len(tokenizer.encode(records[i]["text"])) + 1 for i in range(len(records)))
    cut, wanted = sum(length > WORDS for length in lengths), lengths[int(np.ceil(0.99 * len(lengths))) - 1]
    assert list(warnings(experiment, data)) == [
        f"warning: {cut} of 72 texts of 'shapes', drawn at random, are longer than the model reads, and lose what "
        f"comes after 8 tokens (metric truncated/shapes). {wanted} would hold 99% of them: data.transforms.text.0."
        f"length={wanted} towers.text.length={wanted}"
    ]


def test_sounds_are_said_in_seconds_with_what_is_heard_of_them(trained: Trained):
    samples = SAMPLES // 2
    overrides = [f"data.transforms.audio.1.samples={samples}", f"towers.audio.samples={samples}"]
    experiment = build(
        tiny_config(trained.table, *overrides, "data.transforms.text.0.length=99", "towers.text.length=99")
    )
    (said,) = warnings(experiment, prepared(experiment.data, trained.workdir))
    found = re.fullmatch(
        r"warning: 72 of 72 sounds of 'shapes', drawn at random, are longer than the model hears: 800 samples "
        r"\(0\.05 s\), a random part of each in training, the beginning in evaluation \(metric truncated/shapes\)\. "
        r"([\d,]+) samples \((0\.\d+) s\) would hold 99% of them: data\.transforms\.audio\.1\.samples=(\d+) "
        r"towers\.audio\.samples=(\d+)",
        said,
    )
    assert found, said
    wanted = int(found[1].replace(",", ""))
    assert found[3] == found[4] == str(wanted)
    assert float(found[2]) == pytest.approx(wanted / RATE, rel=0.01)
    assert 0.97 * SAMPLES < wanted <= SAMPLES  # the longest is drawn from 0.7 to 1.0 of it


def test_a_few_per_cent_are_not_worth_a_word(trained: Trained, monkeypatch):
    experiment = build(tiny_config(trained.table))
    data = prepared(experiment.data, trained.workdir)
    for few, said in ((5, 0), (6, 1)):
        found = Lengths("shapes", "text", (WORDS,) * (100 - few) + (WORDS + 1,) * few)
        monkeypatch.setattr(truncation, "sampled", lambda *_, found=found: [found])
        assert len(list(warnings(experiment, data))) == said


def test_with_one_kind_of_what_can_be_cut_there_is_one_number(trained: Trained):
    data = prepare(build(tiny_config(trained.table, name="pair")).data)
    truncated = Truncated(data, Mesh().build())
    truncated.cuts._counts = {3: np.array([[[3, 12], [3, 12]]], np.int32)}
    assert {name: float(value) for name, value in truncated(3).items()} == {"truncated/shapes": 0.25}
