"""Captions for tests: four images with figures of pycocoevalcap, and random corpora."""

import numpy as np
from hypothesis import strategies as st

TEXTS = ("a dog runs on the beach", "two men play chess in a park", "a red bus", "a cat a cat a cat sleeps")
REFERENCES = (
    ("a dog is running along the beach", "the dog runs on wet sand", "a brown dog on the beach"),
    ("two old men are playing chess in the park", "men play chess"),
    ("a red double-decker bus drives down the street", "a bus on a street"),
    ("a cat sleeps on a sofa", "the cat is asleep", "a grey cat sleeps"),
)
WORDS, KNOWN = [text.split() for text in TEXTS], [[text.split() for text in given] for given in REFERENCES]

tokens = st.lists(st.integers(0, 5), max_size=9)
corpora = st.lists(st.tuples(tokens, st.lists(tokens, min_size=1, max_size=4)), min_size=1, max_size=6)


def random_corpus(seed: int, images: int = 12, words: int = 12) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Texts and their references of so many words in all, some texts empty."""
    rng = np.random.default_rng(seed)

    def text(shortest: int) -> list[str]:
        return [f"w{number}" for number in rng.integers(0, words, int(rng.integers(shortest, 14)))]

    return [text(0) for _ in range(images)], [[text(1) for _ in range(int(rng.integers(1, 6)))] for _ in range(images)]


def as_pycocoevalcap(texts: list[list[str]], references: list[list[list[str]]]) -> tuple[dict, dict]:
    """`gts` and `res` as its scorers take them."""
    given = {row: [" ".join(words) for words in each] for row, each in enumerate(references)}
    return given, {row: [" ".join(words)] for row, words in enumerate(texts)}
