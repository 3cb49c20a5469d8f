"""The dialogues of `described_emoji`: three to five questions about a picture, of which some refer back.

A question speaks of a tile by one of its facts ("the red tile"), by a pronoun ("it": the tile that was spoken of last),
or leaves out all but the change ("and the other one?", which asks the same of the other tile). Of each scene there are
two dialogues, of the same questions at the same places, which begin with one tile and the other. So what refers back
has two different answers: the picture and the question without what was said before tell half of them at most.

No question asks what was told, and none has an answer that follows from earlier ones without the picture, but for the
value that the other tile has.
"""

from dataclasses import dataclass, field

from mmjax.data.datasets.described_emoji.tiles import FACTS, ColouredTile, TiledScene
from mmjax.data.datasets.emoji_stories.grammar import hash_choice

LENGTHS = range(3, 6)  # questions of a dialogue
_MEANT_BY = ("kind", "colour", "place")  # facts that a question means a tile by, as in "the red tile"
_ASKED = {
    "kind": ("What kind of emoji is on {}?", "What kind of emoji does {} show?"),
    "colour": ("What colour is {}?", "What is the colour of {}?"),
    "count": ("How many emoji are on {}?", "How many emoji does {} show?"),
    "place": ("Where is {}?", "In which corner is {}?"),
}
_OTHER = ("And the other one?", "What about the other one?", "And what about the other tile?")
_COMPARED = {
    "side": "Is it to the left or to the right of the other one?",
    "height": "Is it above or below the other one?",
}
_WAYS = ("other", "other", "it", "it", "compared", "named")  # a turn after the first takes one of those that can be


@dataclass(frozen=True)
class AskedTurn:
    """A question with its answer.

    fact: what is asked, of `FACTS`, or "side" or "height". way: "named" where the question stands alone; "it", "other"
    and "compared" need what was said before. told: the answer's value of the other tile, if it was told before, or "".
    """

    question: str
    answer: str
    fact: str
    way: str
    told: str

    @property
    def needs_history(self) -> bool:
        """True where the answer depends on an earlier turn."""
        return self.way != "named"

    @property
    def kind(self) -> str:
        """The fact and the way, such as "colour/it"."""
        return f"{self.fact}/{self.way}"


def dialogues_of(scene: TiledScene) -> tuple[tuple[AskedTurn, ...], tuple[AskedTurn, ...]]:
    """The two dialogues of a scene, which begin with its first and with its second tile."""
    first, second = scene.tiles
    key = f"{scene.id}/dialogue"
    return _Dialogue(key, first, second).held(), _Dialogue(key, second, first).held()


@dataclass
class _Dialogue:
    """A dialogue as far as it is held. Nothing that it draws depends on which tile it begins with.

    key: what is hashed. mine, other: the tile that was spoken of last, and the other. known: what was told of each.
    """

    key: str
    mine: ColouredTile
    other: ColouredTile
    turns: list[AskedTurn] = field(default_factory=list)
    known: dict[str, set[str]] = field(default_factory=dict)

    def held(self) -> tuple[AskedTurn, ...]:
        """All its turns."""
        self.known = {tile.place: set() for tile in (self.mine, self.other)}
        for turn in range(hash_choice(LENGTHS, f"{self.key}/length")):
            options = self._options()
            if turn == LENGTHS[0] - 1 and not any(each.needs_history for each in self.turns):
                del options["named"]
            if not options:  # all is told
                break
            way = hash_choice([way for way in _WAYS if way in options], f"{self.key}/{turn}/way")
            self._ask(way, *hash_choice(options[way], f"{self.key}/{turn}/which"))
        return tuple(self.turns)

    def _options(self) -> dict[str, list[tuple[str, str, bool]]]:
        """The questions that can be asked next, by the way.

        Of each the fact, the fact that it means its tile by, or "", and whether that is the other tile.
        """
        compared = any(turn.way == "compared" for turn in self.turns)
        # Of places and how they compare only the one or the other: the one tells of the other.
        fits = [fact for fact in FACTS if not (compared and fact == "place")]
        new = {tile.place: [fact for fact in fits if fact not in self.known[tile.place]] for tile in self._tiles()}
        found = {
            "named": [
                (fact, by, tile is self.other)
                for tile in (self._tiles() if self.turns else [self.mine])
                for fact in new[tile.place]
                for by in _MEANT_BY
                if by in fits and by != fact
            ]
        }
        if self.turns:
            found["other"] = [(fact, "", True) for fact in new[self.other.place] if fact == self.turns[-1].fact]
            found["it"] = [(fact, "", False) for fact in new[self.mine.place]]
            if not compared and not any("place" in known for known in self.known.values()):
                found["compared"] = [(fact, "", False) for fact in sorted(self.mine.relations(self.other))]
        return {way: options for way, options in found.items() if options}

    def _tiles(self) -> list[ColouredTile]:
        return [self.mine, self.other]

    def _ask(self, way: str, fact: str, by: str, other: bool) -> None:
        if other:
            self.mine, self.other = self.other, self.mine
        facts = self.mine.facts()
        if way == "compared":
            question = _COMPARED[fact]
            answer = self.mine.relations(self.other)[fact]
        else:
            answer = facts[fact]
            # Of one way and fact the words are the same in all of a dialogue, so that they have several answers.
            form = hash_choice(_OTHER if way == "other" else _ASKED[fact], f"{self.key}/{way}/words")
            question = form.format(f"the {facts[by]} tile" if by else "it")
            if way == "it":
                question = f"And {question[0].lower()}{question[1:]}"
        told = self.other.facts()[fact] if fact in self.known[self.other.place] else ""
        self.turns.append(AskedTurn(question, answer, fact, way, told))
        self.known[self.mine.place] |= {fact, by} - {""}
