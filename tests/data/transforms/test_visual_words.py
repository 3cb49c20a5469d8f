"""Visual words of features: masks, lengths, and what is refused."""

import numpy as np
import pytest

from mmjax.data import BadExample, Input, Spec, VideoInput, VisualWords, WordTree
from mmjax.data.chains import Chains, chain_specs, evaluation
from mmjax.data.tokenizers.word_tree import TreeTokenizer, tree_bytes
from mmjax.data.transforms.values import Cut, Masked
from mmjax.data.transforms.visual_words import FeatureRows
from mmjax.errors import UserError
from tests.data.tokenizers.test_word_tree import grown

TREE = TreeTokenizer(tree_bytes(grown()))  # of features of 4 numbers
STEP = VisualWords(TREE)
FEATURES = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)
WORDS = TREE.words(FEATURES)


def test_each_real_feature_gets_its_word_and_padding_the_word_0():
    mask = np.array([True, False, True, True, False, True])
    for padded in (FEATURES, np.where(mask[:, None], FEATURES, np.nan)):  # whatever is there isn't looked at
        found = STEP(Masked(padded, mask), None)
        assert found.values.dtype == np.int32
        assert found.values.tolist() == np.where(mask, WORDS, 0).tolist()
        assert found.mask.tolist() == mask.tolist()
    assert WORDS[~mask].any()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_column_of_features_is_cut_or_padded_to_its_length(kind: type):
    given = FEATURES.astype(kind)
    words = TREE.words(given.astype(np.float32)).tolist()
    short = VisualWords(TREE, length=4)(given, None)
    assert isinstance(short, Cut)
    assert (short.whole, short.values.tolist(), short.mask.tolist()) == (6, words[:4], [True] * 4)
    long = VisualWords(TREE, length=8)(given, None)
    assert not isinstance(long, Cut)
    assert (long.values.tolist(), long.mask.tolist()) == ([*words, 0, 0], [True] * 6 + [False] * 2)
    assert VisualWords(TREE, length=6)(given.tolist(), None).values.tolist() == words
    cell = np.empty(6, object)  # as a column of Arrow gives rows
    cell[:] = list(given)
    assert VisualWords(TREE, length=6)(cell, None).values.tolist() == words


def test_what_it_says_of_its_words():
    described = VisualWords(WordTree("words.safetensors", 12, 4))
    before = Spec((8, 1024), "float32", masked=True, kind=VideoInput)
    assert described.spec(before) == Spec((8,), "int32", masked=True, kind=VideoInput, pieces=20_736)
    own = VisualWords(WordTree("words.safetensors", 12, 4), length=5).spec(None)
    assert own == Spec((5,), "int32", masked=True, kind=FeatureRows, pieces=20_736)
    assert issubclass(own.kind, Input)
    assert FeatureRows("video", (), own).listed(FEATURES)[1]  # one input
    with pytest.raises(UserError, match=r"say how many words a video has, length=\.\.\."):
        chain_specs({"video": (described,)})
    with pytest.raises(UserError, match=r"reads features float32\[T, D\], and uint8\[8, 32, 32, 3\] comes before it"):
        described.spec(Spec((8, 32, 32, 3), "uint8"))
    with pytest.raises(UserError, match=r"VisualWords\(length=0\) must be at least 1"):
        VisualWords(TREE, length=0)


def test_another_width_is_told_with_both():
    with pytest.raises(UserError, match=r"features \[6, 3\], and its tree was fitted on features of 4 numbers"):
        STEP(Masked(FEATURES[:, :3], np.ones(6, bool)), None)
    with pytest.raises(UserError, match=r"features \[24\], and its tree was fitted on features of 4"):
        STEP(FEATURES.reshape(-1), None)
    with pytest.raises(UserError, match=r"no tree yet: WordTree\(path='x'"):
        VisualWords(WordTree("x"))(FEATURES, None)
    with pytest.raises(UserError, match="the model has no tree of visual words"):
        VisualWords(WordTree("x")).with_tokenizer(object())


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (np.full((2, 4), np.inf, np.float32), "not_finite"),
        (np.zeros((0, 4), np.float32), "empty"),
        (np.zeros((2, 4), np.int32), "undecodable"),
        ([[1.0, 2.0, 3.0, 4.0], [1.0]], "undecodable"),
        (["a", "b"], "undecodable"),
    ],
)
def test_features_that_cannot_be_used_are_bad_examples(given: object, kind: str):
    with pytest.raises(BadExample) as caught:
        STEP(given, None)
    assert caught.value.kind == kind


def test_in_a_chain_a_column_becomes_a_row_of_words():
    chains = Chains({"clips": (VisualWords(WordTree(None, 3, 3), length=7),)}, {"clips": TREE})
    row = chains.row({"clips": FEATURES}, evaluation)
    assert row["clips"].tolist() == [*WORDS.tolist(), 0]
    assert row["clips_mask"].sum() == 6
    assert row["clips_valid"]
