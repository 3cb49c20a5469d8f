"""Tags of words at the pieces of several tokenizers, against pieces counted by growing the text word by word."""

import csv
import itertools
import pickle
from typing import Any

import numpy as np
import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.chains import Chains, captions
from mmjax.data.evaluation import evaluation_batches
from mmjax.data.pipeline import Mixture, batch_spec, batches, prepare
from mmjax.data.sources.folder import Folder
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.tokenizers.subwords import Subwords
from mmjax.data.transforms.tagged import TaggedWords, TagWords, TokenizeTagged
from mmjax.data.transforms.text import Canonicalize, Lowercase, Prompt, Tokenize
from mmjax.data.transforms.text_input import TextInput
from mmjax.data.transforms.values import Cut
from mmjax.errors import UserError
from tests.data.conftest import kind_of
from tests.data.vocabularies import write_bert, write_clip, write_gemma, write_siglip

TAGS = ("O", "B-PER", "I-PER", "B-LOC")
WORDS = ["a", "photo", "of", "the", "cat", "don't", "café", "naïve", "日本", "2024", "snake_case", "wide", "hello,"]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> dict[str, Tokenizer]:
    found: dict[str, Tokenizer] = {"trained": PieceTokenizer(SentencePiece(120).train([" ".join(WORDS)] * 3))}
    for name, write in (("bert", write_bert), ("clip", write_clip), ("gemma", write_gemma)):
        folder = tmp_path_factory.mktemp(name)
        found[name] = Subwords(50_000, str(write(folder))).load(None, folder)
    siglip = write_siglip(tmp_path_factory.mktemp("siglip"))
    return found | {"siglip": PieceTokenizer((siglip / "spiece.model").read_bytes())}


def by_hand(tokenizer, words, tags, length, bos, eos):
    """Each word's tag where the text up to the word before it ends."""
    found = [-1] * length
    for place, tag in enumerate(tags):
        before = len(tokenizer.encode(" ".join(words[:place]))) if place else 0
        own = len(tokenizer.encode(" ".join(words[: place + 1]))) - before
        if own and bos + before < length - eos and tag is not None:
            found[bos + before] = TAGS.index(tag)
    return found


@pytest.mark.parametrize("name", ["trained", "bert", "clip", "gemma", "siglip"])
def test_the_first_piece_of_each_word_has_its_tag(tokenizers, name):
    tokenizer, rng = tokenizers[name], np.random.default_rng(0)
    bos = tokenizer.bos is not None
    several = 0
    for length in (8, 20, 60):
        tokenize = TokenizeTagged(tokenizer, length, bos=bos, classes=TAGS)
        for _ in range(10):
            words = rng.choice(WORDS, int(rng.integers(1, 9))).tolist()
            tags = [[*TAGS, None][i] for i in rng.integers(0, 5, len(words))]
            (ids, mask), labels = tokenize({"words": words, "tags": tags}, None)
            plain = Tokenize(tokenizer, length, bos=bos)(" ".join(words), None)
            np.testing.assert_array_equal(ids, plain.values)  # as the chain of plain texts has them
            np.testing.assert_array_equal(mask, plain.mask)
            assert labels["tags"].dtype == np.int32
            assert labels["tags"].tolist() == by_hand(tokenizer, words, tags, length, bos, True)
            several += int(mask.sum()) > len(words) + 2
    assert several  # words are cut into several pieces


def test_a_text_that_is_too_long_keeps_the_tags_of_what_is_left(tokenizers):
    tokenize = TokenizeTagged(tokenizers["bert"], 6, bos=True, classes=TAGS)
    found = tokenize({"words": "cat photo cat photo cat", "tags": "B-PER O B-LOC I-PER I-PER"}, None)
    assert isinstance(found.value, Cut)
    assert found.value.whole == 7
    assert found.labels["tags"].tolist() == [-1, 1, 0, 3, 2, -1]


def test_a_word_without_a_piece_gives_its_tag_to_no_other(tokenizers):
    tokenize = TokenizeTagged(tokenizers["bert"], 6, bos=True, classes=TAGS)
    for words, tags, expected in (
        (["cat", "\x07", "photo"], ["O", "B-PER", None], [-1, 0, -1, -1, -1, -1]),  # which BERT drops
        (["cat", "\x07"], ["O", "B-PER"], [-1, 0, -1, -1, -1, -1]),
        (["", "cat", " "], ["B-PER", "O", "B-PER"], [-1, 0, -1, -1, -1, -1]),
    ):
        assert tokenize({"words": words, "tags": tags}, None).labels["tags"].tolist() == expected
    spaced = TokenizeTagged(tokenizers["gemma"], 9, classes=TAGS)  # to which two spaces are two pieces
    found = spaced({"words": ["cat", "", "cat"], "tags": ["O", "B-PER", "B-LOC"]}, None)
    np.testing.assert_array_equal(found.value[0], Tokenize(tokenizers["gemma"], 9)("cat cat", None).values)
    assert found.labels["tags"].tolist() == by_hand(tokenizers["gemma"], ["cat", "cat"], ["O", "B-LOC"], 9, False, True)


def test_nothing_is_scored_behind_the_end_that_a_text_names(tokenizers):
    tokenize = TokenizeTagged(tokenizers["clip"], 8, bos=True, classes=TAGS)
    (_, mask), labels = tokenize({"words": ["cat", "<|endoftext|>", "photo"], "tags": "B-PER O B-LOC"}, None)
    assert mask.tolist() == [True] * 3 + [False] * 5
    assert labels["tags"].tolist() == [-1, 1, 0, -1, -1, -1, -1, -1]


def test_tags_are_names_or_numbers_and_words_texts_or_lists(tokenizers):
    tokenize = TokenizeTagged(tokenizers["bert"], 6, bos=True, classes=TAGS)
    expected = [-1, 1, 2, 0, -1, -1]
    for words in ("cat photo the", ["cat", "photo", "the"], np.array(["cat", "photo", "the"])):
        for tags in ("B-PER I-PER O", ["B-PER", "I-PER", "O"], [1, 2, 0], np.array([1, 2, 0]), "1 2 0"):
            assert tokenize({"words": words, "tags": tags}, None).labels["tags"].tolist() == expected
    for tags in (None, [None, -1, float("nan")], ""):
        assert set(tokenize({"words": "cat photo the", "tags": tags}, None).labels["tags"].tolist()) == {-1}
    assert set(tokenize("cat photo the", None).labels["tags"].tolist()) == {-1}


@pytest.mark.parametrize(
    ("words", "tags", "kind", "said"),
    [
        ("cat photo", "O", "unfit", "there are 2 words and 1 tags"),
        (["cat"], ["O", "O"], "unfit", "there are 1 words and 2 tags"),
        ("cat photo", "O B-PRE", "unfit", r"'B-PRE' is none of the 4 classes; did you mean B-PER"),
        ("cat photo", [0, 4], "unfit", "4, and the 4 classes have the numbers 0 to 3"),
        ("cat", 3, "unfit", "the tags are no list but 3"),
        (["cat", 7], "O O", "undecodable", "the words are no texts but"),
        (3, None, "undecodable", "the words are no texts but 3"),
        ([], [], "empty", "empty"),
        (["", " "], ["O", "O"], "empty", "empty"),
        (["\ud800"], ["O"], "undecodable", "no text"),
    ],
)
def test_what_cannot_be_aligned_is_bad(tokenizers, words, tags, kind, said):
    tokenize = TokenizeTagged(tokenizers["bert"], 8, bos=True, classes=TAGS)
    with pytest.raises(BadExample, match=said):
        tokenize({"words": words, "tags": tags}, None)
    assert kind_of(tokenize, {"words": words, "tags": tags}) == kind


class Crossing(Tokenizer):
    """One piece of every two letters, across the words."""

    SUFFIX = ".crossing"
    vocab_size, pad, bos, eos = 100, 0, 1, 2

    def __init__(self, model=b""):
        self.model = model

    def encode(self, text):
        return [3 + (ord(a) + ord(b)) % 97 for a, b in itertools.zip_longest(text[::2], text[1::2], fillvalue=" ")]


@pytest.mark.parametrize("length", [4, 12])
def test_a_tokenizer_whose_pieces_reach_over_words_is_not_misaligned(length):
    tokenize = TokenizeTagged(Crossing(), length, classes=TAGS)
    with pytest.raises(BadExample, match="a piece reaches from one word into the next in 'odd even'"):
        tokenize({"words": "odd even", "tags": "O O"}, None)


def test_steps_before_the_tokenizer_clean_each_word_and_lose_no_tag(tokenizers):
    tokenize = TokenizeTagged(tokenizers["bert"], 10, bos=True, classes=TAGS)
    chain = Chains({"text": (Lowercase(), Canonicalize(), tokenize)})
    tagged = TaggedWords(["The", "--", "Cat,", "PHOTO"], ["O", "I-PER", "B-PER", "B-LOC"])
    row = chain.row({"id": "a", "text": tagged}, lambda name: None)
    plain = chain.row({"id": "a", "text": "The -- Cat, PHOTO"}, lambda name: None)
    np.testing.assert_array_equal(row["text"], plain["text"])
    assert row["text_tags"].tolist() == [-1, 0, 1, 3, *[-1] * 6]  # the word of dashes is gone, and its tag
    assert chain.raw({"text": tagged}, "text") == "The -- Cat, PHOTO"
    assert captions({"text": tagged}, "text", (Lowercase(), tokenize)) == ["the -- cat, photo"]
    with pytest.raises(UserError, match="in front of every one of them"):
        tagged.mapped(Prompt("query: "))
    with pytest.raises(UserError, match="no document"):
        tagged.other(np.random.default_rng(0))
    assert pickle.loads(pickle.dumps(tagged)).tags == tagged.tags


def test_two_columns_become_one_input():
    both = TagWords()
    made = both({"id": "a", "words": "the cat", "tags": "O O", "text": "The cat."}, None)
    assert (str(made["text"]), made["text"].tags) == ("the cat", ["O", "O"])
    for words in ({}, {"words": None}, {"words": " "}):
        record = {"id": "a", "text": "a caption", **words}
        assert both(dict(record), None) == record
    assert both.columns(("id", "words", "tags")) == ("id", "words", "tags", "text")
    assert both.columns(("id", "text", "words")) == ("id", "text", "words")
    assert both.columns(("id", "image")) == ("id", "image")
    other = TagWords("tokens", "ner", "sentence")
    assert str(other({"tokens": ["a", "b"], "ner": [0, 0]}, None)["sentence"]) == "a b"


def test_classes_are_checked(tokenizers):
    cases: list[tuple[Any, str]] = [((), "no classes"), ("OB", "tuple of names"), (("O", "O"), "more than once")]
    for classes, said in cases:
        with pytest.raises(UserError, match=f"TokenizeTagged.*{said}"):
            TokenizeTagged(SentencePiece(40), 8, classes=classes)
    with pytest.raises(UserError, match="pad=500"):
        TokenizeTagged(tokenizers["bert"], 8, pad=500, classes=TAGS)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tagged")
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "text", "words", "tags", "split"])
        for i in range(20):
            words = [WORDS[(i + k) % 6].upper() for k in range(i % 4 + 1)]
            tags = [TAGS[(i + k) % 4] for k in range(len(words) - (i == 7))]  # row 7 lacks a tag
            given = ["", ""] if i == 5 else [" ".join(words), " ".join(tags)]
            table.writerow([i, "only text" if i == 5 else "", *given, "test" if i % 5 == 4 else "train"])
    chain = Lowercase(), TokenizeTagged(SentencePiece(40), 24, classes=TAGS)
    mixture = Mixture(
        {"own": 1.0}, {"text": chain}, {"own": Folder(str(folder / "t.csv"))}, record_transforms=(TagWords(),)
    )
    return prepare(mixture, data_dir=str(folder))


def taken(prepared, count, **where):
    stream = batches(prepared, batch_size=4, seed=2, **where)
    found = list(itertools.islice(stream, count))
    stream.close()  # type: ignore[attr-defined]
    return found


def test_batches_hold_the_tags_of_their_words(prepared):
    spec = batch_spec(prepared.mixture, 4)
    assert (spec["text_tags"].shape, spec["text_tags"].dtype) == ((4, 24), np.int32)
    whole, later = taken(prepared, 8), taken(prepared, 3, step=5)
    tokenizer, bad = prepared.chains.tokenizers["text"], 0
    for place, batch in enumerate(whole):
        if place >= 5:
            for name, array in batch.items():
                np.testing.assert_array_equal(array, later[place - 5][name], err_msg=name)
        names = ("text", "text_mask", "text_tags", "text_valid")
        for ids, mask, tags, valid in zip(*(batch[name] for name in names), strict=True):
            if not valid:
                bad += 1
                assert not ids.any()
                assert not tags.any()
                continue
            words = tokenizer.decode(ids[mask]).split()
            assert all(word == word.lower() for word in words)
            assert (tags[~mask] == -1).all()
            assert (tags >= 0).sum() == (0 if words == ["only", "text"] else len(words))
    assert bad == 2  # the row of too few tags, in each of two epochs
    ((batch, columns),) = evaluation_batches(prepared, "test", 4)
    assert columns["text"][0] == "CAT"
    assert columns["tags"][0] == "O"
    assert batch["text_valid"].all()
    assert prepared.chains.specs["text"].kind is TextInput
