"""The ids of MERLOT Reserve's special tokens, and the pieces of words beside them."""

from dataclasses import astuple, dataclass

from mmjax.data.bad_example import BadExample
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.errors import UserError

WORDS = 2**16  # whose pieces are remembered: most of what is said is said with few words


@dataclass(frozen=True)
class ReserveIds:
    """The special ids, with the paper's values, and by how many all ids of the tokenizer are raised.

    pad: of padding. start, end: of a text's begin and end, for who writes a prompt. mask: a removed text. mask_audio: a
    removed sound. audio_span: a token of a sound. pool: the place that is matched with a frame. shift: what is added to
    a tokenizer's id, so that the table of tokens has `vocab_size + shift` rows; the paper keeps the ids to 9 free.

    Raises UserError where two are the same, or one is below 0.
    """

    pad: int = 0
    start: int = 1
    end: int = 2
    mask: int = 3
    mask_audio: int = 4
    audio_span: int = 5
    pool: int = 6
    shift: int = 10

    def __post_init__(self) -> None:
        special = astuple(self)[:-1]
        if len(set(special)) < len(special) or min(astuple(self)) < 0:
            raise UserError(f"{self}: the special ids are different numbers, and none is below 0")

    def pieces(self, tokenizer: Tokenizer, text: str) -> list[int]:
        """The raised ids of a text's pieces, as a part of a longer text.

        Raises:
            BadExample: the text isn't valid text.
            UserError: a piece has the id of a special token.
        """
        try:
            ids = [id + self.shift for id in tokenizer.encode(" " + text)]
        except (UnicodeError, RuntimeError) as error:  # half a surrogate pair, as a broken JSON gives it
            raise BadExample(f"the text is no text: {error}", "undecodable") from error
        if met := set(ids) & set(astuple(self)[:-1]):
            raise UserError(
                f"{self}: a piece of {text!r:.40} has the id {met.pop()}, which is a special token's: raise shift to "
                f"{max(astuple(self)[:-1]) + 1} or more"
            )
        return ids


PAPER_IDS = ReserveIds()


class WordPieces(dict[str, tuple[int, ...]]):
    """The pieces of single words, as `ReserveIds.pieces` gives them, remembered; "" has none. A pickled one forgets."""

    def __init__(self, ids: ReserveIds, tokenizer: Tokenizer):
        super().__init__()
        self.ids, self.tokenizer = ids, tokenizer

    def __missing__(self, word: str) -> tuple[int, ...]:
        if len(self) >= WORDS:
            self.clear()
        self[word] = found = tuple(self.ids.pieces(self.tokenizer, word)) if word else ()
        return found

    def __reduce__(self) -> tuple[type["WordPieces"], tuple[ReserveIds, Tokenizer]]:
        return WordPieces, (self.ids, self.tokenizer)
