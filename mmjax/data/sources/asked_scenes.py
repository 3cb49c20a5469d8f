"""Questions about pictures that are drawn as they are read: training data as large as one likes, and nothing built."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from mmjax.data.datasets.asked_emoji.asker import Asker
from mmjax.data.datasets.asked_emoji.picture import painted
from mmjax.data.datasets.asked_emoji.scenes import Pool
from mmjax.data.datasets.asked_emoji.speech import spoken, utterance
from mmjax.data.datasets.asked_emoji.things import things
from mmjax.data.sources.contract import Records, Source
from mmjax.data.sources.fingerprints import of_text
from mmjax.errors import UserError

_SPLIT = "train"


@dataclass(frozen=True)
class AskedScenes(Source):
    """Training questions of the kind of `asked_emoji`; the other splits are those of `source`.

    Question and picture are a function of the record's number alone, so that a run reads the same on any number of
    hosts and workers, and when it goes on. All emoji are of training, and what is asked is balanced as in the dataset.
    Columns: `id`, `image` (uint8 [96, 96, 3]), `question`, `answer`, `kind`, `form`, `picture`, and on request `audio`
    and `voice`. Opening it takes some seconds, and each emoji in each size half a millisecond when a process first
    draws it. Needs the extra `demo`.

    Attributes:
        source: where validation and test are from: `Tfds("asked_emoji")`.
        count: questions of an epoch, of which four in a row share a picture.
        limit: of each group's emoji only so many, drawn by hash.
        speech: whether each question is spoken too, as in the dataset: 7 ms of a core.
    """

    source: Any
    count: int = 1_000_000
    limit: int | None = None
    speech: bool = False

    def open(self, split: str, data_dir: str | None = None) -> Records:
        """Opens a split. Raises UserError for fields out of range, or where a package is missing; and as `source`."""
        for name, value in (("count", self.count), ("limit", self.limit)):
            if value is not None and value < 1:
                raise UserError(f"AskedScenes({name}={value!r}): it is at least 1")
        if split != _SPLIT:
            source: Source = self.source
            return source.open(split, data_dir)
        return SceneRecords(_asker(self.limit), self.count, self.speech)


@cache  # a run opens its data twice: for the tokenizer, and to train
def _asker(limit: int | None) -> Asker:
    try:
        emoji = things(limit)
    except ImportError as error:
        raise UserError(f'AskedScenes needs the package {error.name}: pip install "mmjax[demo]"') from error
    return Asker(Pool(emoji, _SPLIT))


class SceneRecords(Records):
    """The first `count` questions of an asker."""

    columns = ("id", "image", "question", "answer", "kind", "form", "picture")

    def __init__(self, asker: Asker, count: int, speech: bool):
        self._asker, self._count, self._speech = asker, count, speech
        if speech:
            self.columns = (*type(self).columns, "audio", "voice")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        index = range(self._count)[index]
        scene, asked = self._asker.asked(index)
        record = {"id": f"drawn-{index:08d}", "image": painted(scene), **vars(asked)}
        if self._speech:
            said = utterance(record["id"], _SPLIT)
            record |= {"audio": spoken(asked.question, said), "voice": said.voice}
        return record

    def fingerprint(self, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """The number of questions, and a digest of what they are drawn from, whichever `columns` are asked for."""
        del columns
        known = {"rows": self._count, "emoji": of_text(self._asker.described())}
        return known | {"speech": 1} if self._speech else known
