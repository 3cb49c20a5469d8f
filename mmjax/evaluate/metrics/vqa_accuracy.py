"""The accuracy of answers to questions on pictures as VQA's evaluation counts it, with its normalisation of answers.

It is that of the evaluation code that VQA's authors published (GT-Vision-Lab/VQA, `vqaEval.py`), slips included, so
that numbers compare.
"""

import re
from collections.abc import Sequence

from mmjax.errors import UserError

ENOUGH = 3  # of the others' answers that agree make an answer fully right
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # neither colon, period nor apostrophe
PERIODS = 32  # the published code removes so many: it passes a flag where the number stands
ARTICLES = ("a", "an", "the")
NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
           "seven": "7", "eight": "8", "nine": "9", "ten": "10"}  # fmt: skip
# The contractions that a word becomes which lacks one of their apostrophes; `lets` and `shes` stay as they are.
CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CONTRACTIONS = {
    word[: mark.start()] + word[mark.end() :]: word for word in CONTRACTED.split() for mark in re.finditer("'", word)
} | {"somebody'd": "somebodyd"}


def vqa_accuracy(answer: str, annotators: Sequence[str]) -> float:
    """The accuracy of an answer: the mean, over the annotators left out one at a time, of min(1, agreeing others / 3)
    (Antol et al. 2015, arXiv:1505.00468). With ten of them it is 0, 0.3, 0.6, 0.9, or 1 from four equal answers on.

    Answers are normalised unless all annotators write the same: then the answer must be written so too.

    Raises UserError where `annotators` is empty or one text.
    """
    if isinstance(annotators, str) or not len(annotators):
        raise UserError(
            f"vqa_accuracy(annotators={annotators!r:.40}): a list of the answers that people gave, ten in VQA"
        )
    answer, *given = (_trimmed(text) for text in (answer, *annotators))
    if len(set(given)) > 1:
        answer, *given = (normalised_answer(text) for text in (answer, *given))
    agreeing = given.count(answer)
    return sum(min(1.0, (agreeing - (own == answer)) / ENOUGH) for own in given) / len(given)


def normalised_answer(text: str) -> str:
    """The answer in small letters, without articles and most punctuation, with digits for the number words up to ten
    and with the apostrophes of contractions.

    A mark of punctuation is left out where it stands beside a space somewhere in the answer, or the answer holds a
    comma between digits; otherwise it becomes a space. A period is left out unless a digit follows.
    """
    text = found = _trimmed(text)
    thousands = re.search(r"\d,\d", text) is not None
    for mark in PUNCTUATION:
        apart = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if apart or thousands else " ")
    found = re.sub(r"\.(?!\d)", "", found, count=PERIODS)
    words = (NUMBERS.get(word, word) for word in found.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _trimmed(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
