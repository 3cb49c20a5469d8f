"""Parts written on a command line: mmjax's own alone, in the place of others, and told where they are wrong."""

import fiddle as fdl
import pytest

from mmjax.data import Lowercase, Mixture, Tars, Tfds, Tokenize
from mmjax.errors import UserError
from mmjax.experiment.graph import build
from mmjax.experiment.overrides import override
from mmjax.experiment.part_texts import part_of_text


def built(text: str) -> object:
    config = part_of_text(text)
    assert config is not None
    return build(config)


def test_a_part_is_its_call() -> None:
    assert built('Tars("a/{0..3}.tar", {"text": "json/caption"}, shares={"validation": 0.1})') == Tars(
        "a/{0..3}.tar", {"text": "json/caption"}, shares={"validation": 0.1}
    )
    chain = "(Lowercase(), Tokenize(SentencePiece(64), 8))"
    nested = f"Mixture({{'a': 1}}, transforms={{'text': {chain}}}, sources={{'a': Tfds('a')}})"
    found = built(nested)
    assert isinstance(found, Mixture)
    assert (found.sources, found.transforms["text"][0]) == ({"a": Tfds("a")}, Lowercase())
    assert isinstance(found.transforms["text"][1], Tokenize)


@pytest.mark.parametrize(
    "text", ["tars", "3", "'Tars()'", "print('x')", "os.system('x')", "Tars(", "(Tars)", "a=Tars()"]
)
def test_what_calls_no_part_is_none(text: str) -> None:
    assert part_of_text(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Tar('a')", "mmjax has no part 'Tar'; did you mean Tars"),
        ("Source()", "Source is no part of an experiment"),
        (
            "Tars(shard='a')",
            "Tars has no field 'shard'; did you mean shards or shares.*; it has shards, fields, splits",
        ),
        ("Tars('a', **{'index': 'b'})", "Tars has no field None"),
        ("Tfds(1, 2, 3, 4, 5, 6)", "Tfds has 4 fields, and was given 6"),
        ("Tars(open('a'))", "mmjax has no part 'open'"),
        ("Tars(a.b)", "a.b is neither a number, a text, a list of these, nor a part"),
        ("Tars([x for x in 'a'])", "is neither a number"),
        ("Tars(__import__('os').system('x'))", "mmjax has no part .__import__"),
    ],
)
def test_what_is_wrong_is_told(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        part_of_text(text)


def test_a_part_takes_the_place_of_another_or_of_none() -> None:
    config = fdl.Config(Mixture, {"a": 1.0}, {}, sources={"a": fdl.Config(Tfds, "x")})
    override(config, 'sources.a=Tars("x.tar")')
    override(config, 'sources.b=Tars("y.tar", index="beside")')
    override(config, "sources.b.index=cache")
    assert build(config).sources == {"a": Tars("x.tar"), "b": Tars("y.tar")}
    with pytest.raises(UserError, match=r"sources\.b\.index must be one of"):
        override(config, "sources.b.index=there")
    with pytest.raises(UserError, match=r"sources\.a is a Tars, not a value"):
        override(config, "sources.a=3")
