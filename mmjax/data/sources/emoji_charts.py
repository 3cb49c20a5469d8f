"""Unicode's emoji charts as documents: real text of several languages that needs no download (`demo`)."""

from dataclasses import dataclass
from typing import Any

from mmjax.data.datasets.spoken_emoji.catalogue import LANGUAGES, SKIN_TONES, base_id, emoji_words, groups, split_of
from mmjax.data.sources.contract import Source
from mmjax.data.sources.folder import FolderRecords
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.errors import UserError, unknown


@dataclass(frozen=True)
class EmojiCharts(Source):
    """One document a subgroup of the chart: the names of its emoji in the chart's order, without skin tones, as a list.

    98 documents of 1,914 names of Unicode CLDR's a language ("judge", "man judge", "woman judge", "farmer", ...), whose
    split goes by a hash of the subgroup, the same for all languages. Columns: `id`, `text`, `group`, `subgroup`.
    Needs the package `emoji`.
    """

    language: str = "en"

    def open(self, split: str, data_dir: str | None = None) -> FolderRecords:
        """Opens a split.

        Raises UserError for an unknown language or where `emoji` isn't installed, `SplitNotFoundError` for a split.
        """
        del data_dir
        if self.language not in LANGUAGES:
            raise UserError(unknown("EmojiCharts: language", self.language, LANGUAGES, "languages"))
        documents: dict[tuple[str, str], list[str]] = {}
        names = _names(self.language)
        for emoji_id, subgroup in groups().items():
            if emoji_id in names and split_of(f"chart/{subgroup[1]}") == split:
                documents.setdefault(subgroup, []).append(names[emoji_id])
        if not documents:
            raise SplitNotFoundError(f"EmojiCharts has no split {split!r}, it has train, validation, test")
        columns: dict[str, list[Any]] = {
            "id": [f"{self.language}/{subgroup}" for _, subgroup in documents],
            "text": list(documents.values()),
            "group": [group for group, _ in documents],
            "subgroup": [subgroup for _, subgroup in documents],
        }
        return FolderRecords(columns)


def _names(language: str) -> dict[str, str]:
    """The name of every fully qualified emoji without skin tones that has one, by `base_id`."""
    try:
        import emoji
    except ImportError as error:
        raise UserError('EmojiCharts needs the package emoji: pip install "mmjax[demo]"') from error
    emoji.config.load_language()
    found = {}
    for characters, data in emoji.EMOJI_DATA.items():
        codes = [f"{ord(character):04X}" for character in characters]
        if data["status"] == emoji.STATUS["fully_qualified"] and language in data and not SKIN_TONES & set(codes):
            found[base_id("-".join(codes))] = emoji_words(data[language])
    return found
