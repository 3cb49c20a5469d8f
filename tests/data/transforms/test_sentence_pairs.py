"""Pairs of documents whose every piece tells where it comes from."""

import csv
import itertools
from dataclasses import replace

import numpy as np
import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.chains import Chains
from mmjax.data.evaluation import evaluation_batches
from mmjax.data.pipeline import Mixture, batch_spec, batches, prepare
from mmjax.data.sources.documents import DocumentRecords, Documents
from mmjax.data.sources.folder import Folder, FolderRecords
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.sentence_piece import SentencePiece
from mmjax.data.transforms.sentence_pairs import Pair, SentencePair, truncated
from mmjax.data.transforms.text import Lowercase
from mmjax.errors import UserError
from mmjax.inference.inputs import Inputs

PAD, CLS, SEP = range(3)
DOCUMENT = 1_000  # pieces of document d are numbered from 1000 d on


class Numbers(Tokenizer):
    """Words are numbers, and their own ids."""

    SUFFIX = ".numbers"
    vocab_size, pad, bos, eos = 10**6, PAD, CLS, SEP

    def __init__(self, model=b""):
        self.model = model

    def encode(self, text):
        return [int(word) for word in text.split() if word.isdigit()]


def documents(sentences, lengths):
    """Each of so many sentences of so many words."""
    texts = []
    for d, count in enumerate(sentences, start=1):
        starts = DOCUMENT * d + lengths * np.arange(count)
        texts.append([" ".join(map(str, range(start, start + lengths))) for start in starts])
    return DocumentRecords(FolderRecords({"id": [str(i) for i in range(len(texts))], "text": texts}), r"\n+")


def drawn(pair, read, count, place=0):
    """(A, B, next) of so many examples of a document."""
    found = []
    for seed in range(count):
        (values, mask), labels = pair(read[place]["text"], np.random.default_rng(seed))
        assert values.shape == (pair.length,)
        assert values.dtype == np.int32
        row = values[mask].tolist()
        assert (values[~mask] == PAD).all()
        assert row[0] == CLS
        assert row[-1] == SEP
        assert row.count(SEP) == 2
        middle = row.index(SEP)
        found.append((row[1:middle], row[middle + 1 : -1], bool(labels["next"])))
    return found


def test_half_of_the_segments_follow_and_the_others_are_of_another_document():
    read = documents([40, 30, 1, 60], lengths=3)
    pairs = drawn(SentencePair(Numbers(), 35), read, 1_500)
    assert abs(np.mean([follows for *_, follows in pairs]) - 0.5) < 0.04
    for a, b, follows in pairs:
        assert len(a) >= 1
        assert len(b) >= 1
        for segment in (a, b):  # in one piece
            assert segment == list(range(segment[0], segment[0] + len(segment)))
        assert a[0] // DOCUMENT == 1
        assert (b[0] // DOCUMENT == 1) is follows
        if follows and len(a) + len(b) < 32:
            assert b[0] == a[-1] + 1
        if follows:
            assert b[0] > a[-1]
    assert {b[0] // DOCUMENT for _, b, follows in pairs if not follows} == {2, 3, 4}
    starts = [a[0] for a, _, _ in pairs]
    assert len(set(starts)) > 40  # anywhere in the document
    assert {b[-1] for _, b, follows in pairs if follows} >= {1_119}  # up to its end


def test_a_tenth_is_short_and_the_rest_fills_the_length():
    read = documents([100, 100], lengths=1)
    totals = np.array([len(a) + len(b) for a, b, _ in drawn(SentencePair(Numbers(), 23, follow=1.0), read, 1_500)])
    assert abs(np.mean(totals == 20) - (0.9 + 0.1 / 19)) < 0.02
    short = totals[totals < 20]
    assert set(short) == set(range(2, 20))
    always = drawn(SentencePair(Numbers(), 23, shorter=0.0, follow=1.0), read, 200)
    assert {len(a) + len(b) for a, b, _ in always} == {20}
    assert all(follows for *_, follows in always)
    whole = drawn(SentencePair(Numbers(), 60, shorter=0.0, follow=1.0), documents([7, 1], lengths=2), 50)
    assert {(a[0], b[-1]) for a, b, _ in whole} == {(1_000, 1_013)}  # a short document is seen whole


def test_a_document_of_one_sentence_is_followed_by_another():
    pairs = drawn(SentencePair(Numbers(), 30), documents([1, 9], lengths=40), 50)
    assert not any(follows for *_, follows in pairs)
    assert all(len(a) + len(b) == 27 for a, b, _ in pairs)


def one_by_one(first, second, room):
    """As BERT's code does it, but always at the end."""
    first, second = list(first), list(second)
    while len(first) + len(second) > room:
        (first if len(first) > len(second) else second).pop()
    return first, second


def test_truncation_takes_from_the_longer_at_either_end():
    for a, b, room in itertools.product(range(1, 9), range(1, 9), range(2, 9)):
        pair = Pair(list(range(a)), list(range(100, 100 + b)), True)
        assert truncated(pair, room, None) == one_by_one(pair.first, pair.second, room)
    pair = Pair(list(range(50)), list(range(100, 110)), True)
    rng = np.random.default_rng(0)
    cuts = [truncated(pair, 40, rng) for _ in range(400)]
    assert {(len(a), len(b)) for a, b in cuts} == {(30, 10)}
    fronts = np.array([a[0] for a, _ in cuts])
    assert abs(fronts.mean() - 10) < 0.5  # each of 20 lost pieces on either side
    assert abs(fronts.var() - 5) < 1.5


def test_in_evaluation_it_is_the_beginning_and_a_string_is_a_single_segment():
    pair = SentencePair(Numbers(), 12)
    (values, mask), labels = pair(documents([4, 9], lengths=4)[0]["text"], None)
    assert values.tolist() == [CLS, 1000, 1001, 1002, 1003, SEP, 1004, 1005, 1006, 1007, 1008, SEP]
    assert mask.all()
    assert labels["next"]
    (values, mask), labels = pair(documents([1, 1], lengths=2)[0]["text"], None)
    assert values[mask].tolist() == [CLS, 1000, 1001, SEP]
    assert not labels["next"]
    (values, mask), labels = pair("7 8 9", None)
    assert values[mask].tolist() == [CLS, 7, 8, 9, SEP]
    assert not labels["next"]
    assert pair("1 " * 30, None).value[0][-1] == SEP


def test_types_follow_the_two_texts_and_not_the_separator():
    """A [SEP] may stand within a text, which a token alone doesn't tell from the one between two."""
    pair = SentencePair(Numbers(), 12)
    lines = [f"7 {SEP} 8", f"{SEP} 9"]
    document = DocumentRecords(FolderRecords({"id": ["a", "b"], "text": ["\n".join(lines), "1"]}), r"\n+")[0]["text"]
    (values, mask), labels = pair(document, None)
    assert values.tolist() == [CLS, 7, SEP, 8, SEP, SEP, 9, SEP, PAD, PAD, PAD, PAD]
    assert mask.sum() == 8
    assert labels["types"].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0]
    (values, mask), labels = pair(f"7 {SEP} 8", None)
    assert values[mask].tolist() == [CLS, 7, SEP, 8, SEP]
    assert not labels["types"].any()
    (_, mask), labels = pair(documents([9, 9], lengths=4)[0]["text"], np.random.default_rng(1))
    types = labels["types"]
    assert types.dtype == np.int8
    assert (np.diff(types[mask]) >= 0).all()
    assert types[mask][-1] == 1


def test_what_cannot_be_is_named():
    read = documents([3, 3], lengths=2)
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match=r"the data holds '7 8': wrap its source, .*Documents"):
        SentencePair(Numbers(), 12)("7 8", rng)
    with pytest.raises(BadExample, match="the document holds no sentence"):
        SentencePair(Numbers(), 12)(replace_text(read, ["no", "numbers"]), rng)
    with pytest.raises(BadExample, match="the document holds no sentence"):
        SentencePair(Numbers(), 12)(replace_text(read, " "), rng)
    for fields in ({"follow": 1.5}, {"shorter": -0.1}, {"length": 4}, {"eos": False}):
        with pytest.raises(UserError, match=f"SentencePair\\(.*{next(iter(fields))}"):
            replace(SentencePair(Numbers(), 12), **fields)


def replace_text(read, text):
    return DocumentRecords(FolderRecords({"id": ["a", "b"], "text": [text, "1"]}), read.between)[0]["text"]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "text", "split"])
        for d in range(12):
            lines = [f"{words[d % 8].upper()} {words[s % 8]} {d}" for s in range(d % 5 + 2)]
            table.writerow([f"d{d}", "\n".join(lines), "test" if d % 4 == 3 else "train"])
    chain = Lowercase(), SentencePair(SentencePiece(60), 40)
    return Mixture({"own": 1.0}, {"text": chain}, {"own": Documents(Folder(str(folder / "t.csv")))})


def taken(prepared, count, **where):
    stream = batches(prepared, batch_size=8, seed=3, **where)
    rows = list(itertools.islice(stream, count))
    stream.close()  # type: ignore[attr-defined]
    return rows


def test_a_batch_holds_whether_it_follows_and_depends_on_the_place_alone(mixture, tmp_path):
    prepared = prepare(mixture, data_dir=str(tmp_path))
    whole = taken(prepared, 12)
    spec = batch_spec(mixture, 8)
    assert spec["text_next"].dtype == bool
    assert (spec["text_types"].shape, spec["text_types"].dtype) == ((8, 40), np.int8)
    for batch in whole:
        assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {k: (v.shape, v.dtype) for k, v in spec.items()}
        assert batch["text_valid"].all()
    assert 0.25 < np.mean([batch["text_next"] for batch in whole]) < 0.65
    again = [*taken(prepare(replace(mixture, cache=True), data_dir=str(tmp_path)), 6), *taken(prepared, 6, step=6)]
    parts = [taken(prepared, 12, host=(host, 2)) for host in range(2)]
    for batch, same, first, second in zip(whole, again, *parts, strict=True):
        for name, array in batch.items():
            np.testing.assert_array_equal(array, same[name], err_msg=name)
            if name != "index":
                np.testing.assert_array_equal(array, np.concatenate([first[name], second[name]]), err_msg=name)
    texts = [prepared.chains.tokenizers["text"].decode(row) for batch in whole for row in batch["text"]]
    assert all(text == text.lower() for text in texts)


def test_evaluation_and_strings_by_hand(mixture, tmp_path):
    prepared = prepare(mixture, data_dir=str(tmp_path))
    ((batch, columns),) = evaluation_batches(prepared, "test", 4)
    assert batch["text_next"].tolist() == [True, True, True, False]  # the last row is padding
    assert columns["text"][0].startswith("DELTA alpha 3\n")
    inputs = Inputs(Chains(mixture.transforms, prepared.chains.tokenizers))
    row = inputs.row("text", "ALPHA beta")
    assert set(row) == {"text", "text_mask"}
    assert (row["text"][0], row["text"][row["text_mask"]][-1]) == (CLS, SEP)
    assert prepared.chains.tokenizers["text"].decode(row["text"]) == "alpha beta"
    (ids,) = (inputs.row("text", row["text"][row["text_mask"]])["text"],)
    np.testing.assert_array_equal(ids, row["text"])
