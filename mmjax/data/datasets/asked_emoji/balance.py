"""Chooses the questions of `asked_emoji` so that neither a question nor a picture alone tells an answer.

Of one form all answers are as frequent as each other (of one that is asked of twins, but for one more or less), and of
one picture all answers differ.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from mmjax.data.datasets.asked_emoji.questions import Asked
from mmjax.data.datasets.spoken_emoji.catalogue import hashed

# Questions of a kind for each picture, as many as there are to be if enough can be asked.
SHARES = {
    "neighbour": 0.6,
    "beside": 0.4,
    "over": 0.4,
    "side": 0.7,
    "height": 0.5,
    "group": 0.6,
    "count": 0.6,
    "colour": 1.0,
    "presence": 1.0,
}
_MOST = 8  # questions of one picture
_LEAST_ANSWERS = 3  # of a question after a colour: fewer would be guessed too well
_SLACK = 1  # by which answers of a form that is asked in pairs may differ in number


class Balance:
    """The questions chosen so far."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._answers: dict[str, set[str]] = defaultdict(set)  # of a picture
        self._of_text: dict[str, Counter[str]] = defaultdict(Counter)

    def choose_pairs(self, pairs: Iterable[tuple[Asked, Asked]], number: float) -> None:
        """Adds up to `number` questions, of one form, in pairs of the same words and different answers.

        Answers differ in number by one at most, and of the same words not at all.
        """
        left = sorted(pairs, key=lambda pair: hashed(f"{pair[0].picture}/{pair[0].question}"))
        supply = Counter(asked.answer for pair in left for asked in pair)
        times = dict.fromkeys(supply, 0)
        missing = int(number / 2)
        while missing > 0:
            turn: set[str] = set()  # pictures: each is asked once a turn
            least, before = min(times.values(), default=0), dict(times)

            def order(pair: tuple[Asked, Asked], before: dict[str, int] = before) -> tuple[int, ...]:
                """The answers that are behind come first, and of these the rare ones, while there are some left."""
                answers = [asked.answer for asked in pair]
                return min(before[a] for a in answers), min(supply[a] for a in answers), self._load(*pair)

            for pair in sorted(left, key=order):
                most = max(times[asked.answer] for asked in pair) + 1
                new = len(turn) < missing and pair[0].picture not in turn
                if new and most <= least + _SLACK and all(map(self._free, pair)) and self._even(pair):
                    turn.add(pair[0].picture)
                    for asked in pair:
                        times[asked.answer] += 1
                        self._add(asked)
            if not turn:
                return
            missing -= len(turn)

    def choose_alone(self, questions: Iterable[Asked], number: float) -> None:
        """Adds about `number` questions of one kind: of each text one with every answer that it can have, in turns.

        A text that lacks an answer of the others (of colours: most) isn't asked.
        """
        left: dict[str, dict[str, list[Asked]]] = defaultdict(lambda: defaultdict(list))
        for asked in sorted(questions, key=lambda asked: hashed(f"{asked.picture}/{asked.question}")):
            left[asked.question][asked.answer].append(asked)
        whole = len({answer for answers in left.values() for answer in answers})
        texts = sorted(text for text, answers in left.items() if len(answers) >= self._enough(answers, whole))
        chosen = 0
        while texts and chosen < number:
            for text in list(texts):
                turn = [
                    min(free, key=self._load, default=None)
                    for free in ([a for a in asked if self._free(a)] for asked in left[text].values())
                ]
                if None in turn or chosen >= number:
                    texts.remove(text)
                    continue
                for asked in turn:
                    assert asked is not None
                    left[text][asked.answer].remove(asked)
                    self._add(asked)
                chosen += len(turn)

    @staticmethod
    def _enough(answers: dict[str, list[Asked]], whole: int) -> int:
        kind = next(iter(answers.values()))[0].kind
        return min(whole, _LEAST_ANSWERS) if kind == "colour" else whole

    def _add(self, asked: Asked) -> None:
        self.asked.append(asked)
        self._answers[asked.picture].add(asked.answer)
        self._of_text[asked.question][asked.answer] += 1

    def _free(self, asked: Asked) -> bool:
        answers = self._answers[asked.picture]
        return asked.answer not in answers and len(answers) < _MOST

    def _load(self, *asked: Asked) -> int:
        return sum(len(self._answers[each.picture]) for each in asked)

    def _even(self, pair: Sequence[Asked]) -> bool:
        """Whether all answers of a text are as frequent as each other with one more pair."""
        before = self._of_text.get(pair[0].question)
        if before is None:
            return True
        return len(set((before + Counter(asked.answer for asked in pair)).values())) == 1


def balanced(alone: Sequence[Asked], pairs: Sequence[tuple[Asked, Asked]], pictures: int) -> list[Asked]:
    """The questions that are asked of a split's pictures, of all that can be: `alone`, or in `pairs` of twins."""
    balance = Balance()
    for kind, share in SHARES.items():
        forms: dict[str, list[tuple[Asked, Asked]]] = defaultdict(list)
        for pair in pairs:
            if pair[0].kind == kind:
                forms[pair[0].form].append(pair)
        for form in sorted(forms):
            balance.choose_pairs(forms[form], share * pictures / len(forms))
        balance.choose_alone([asked for asked in alone if asked.kind == kind], share * pictures)
    return sorted(balance.asked, key=lambda asked: (asked.picture, hashed(f"{asked.picture}/{asked.question}")))
