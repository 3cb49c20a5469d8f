"""The text of ids while they are written: cut before a string that stops it, given in pieces of whole characters."""

from collections.abc import Sequence

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.errors import UserError

HALF = "\ufffd"  # what a tokenizer gives for bytes that are no character yet


class TextSoFar:
    """The text that is written behind a prompt, as more of its ids come.

    Of the prompt and the ids together the prompt's own text is left away, so that a space between them stays.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = (), stop: Sequence[str] = ()):
        self._tokenizer, self._prompt, self._stop = tokenizer, list(prompt), tuple(stop)
        self._before = tokenizer.decode(self._prompt)
        self.ids: list[int] = []
        self.stopped = False
        self._shown = ""

    def add(self, ids: Sequence[int]) -> bool:
        """Adds ids up to the one that completes a stop string; True if one did."""
        for id in ids:
            if self.stopped:
                break
            self.ids.append(int(id))
            whole = self._whole()
            self.stopped = any(stop in whole for stop in self._stop)
        return self.stopped

    @property
    def text(self) -> str:
        """The text, cut before the first stop string."""
        whole = self._whole()
        places = [place for stop in self._stop if (place := whole.find(stop)) >= 0]
        return whole[: min(places)] if places else whole

    def piece(self, last: bool = False) -> str:
        """The part of the text that wasn't given yet. Half a character, and what may be the begin of a stop string, is
        kept back until more comes; last: nothing comes."""
        text = self.text
        if not (last or self.stopped):
            text = text.rstrip(HALF)
            text = text[: len(text) - self._begun(text)]
        if not text.startswith(self._shown):  # a tokenizer that joins words with what comes behind them
            return ""
        piece, self._shown = text[len(self._shown) :], text
        return piece

    def _whole(self) -> str:
        text = self._tokenizer.decode([*self._prompt, *self.ids])
        if text.startswith(self._before):
            return text[len(self._before) :]
        return self._tokenizer.decode(self.ids)

    def _begun(self, text: str) -> int:
        """The number of last characters that a stop string may begin with."""
        sizes = (size for stop in self._stop for size in range(len(stop) - 1, 0, -1) if text.endswith(stop[:size]))
        return max(sizes, default=0)


def check_stop(stop: Sequence[str], tokenizer: Tokenizer) -> None:
    """Raises UserError where a string is empty, or the tokenizer's pieces can't give it."""
    for one in stop:
        if not isinstance(one, str) or not one:
            raise UserError(f"stop={one!r}: a text stops before a string of one character or more")
        around = [f"{before}{one}{behind}" for before in ("", "a", "a ") for behind in ("", "a")]
        try:
            made = [tokenizer.decode(tokenizer.encode(text)) for text in around]
        except UnicodeError as error:
            raise UserError(f"stop={one!r} is no text: {error}") from error
        if not any(one in text for text in made):
            raise UserError(
                f"stop={one!r} is never written: of it the model's tokenizer makes {made[0]!r}; give what it can make"
            )
