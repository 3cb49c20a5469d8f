"""Views' tokens within a text: the decoder equals loops over one example, whose text has no place that isn't real."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import DecoderBlocks, LinearProjector, MlpProjector, RecurrentDecoder, TextDecoder
from tests.models import oracle
from tests.models.decoders.test_text import LLAMA, projected
from tests.models.decoders.text_by_hand import states

V, B, L, WIDTH, SLOTS = 11, 4, 9, 16, 24
IDS = np.random.default_rng(0).integers(0, V, (B, L)).astype(np.int32)
MASK = np.arange(L) < np.array([9, 8, 7, 3])[:, None]
# Pictures of 3 tokens and sounds of 2, counted through: in the middle, at the ends, twice, beyond the padding.
INSERTS = np.full((B, L), -1, np.int32)
INSERTS[0, 1:4], INSERTS[0, 7:9] = [0, 1, 2], [3, 4]
INSERTS[1, 0:5] = [3, 4, 0, 1, 2]
INSERTS[2, 4:7], INSERTS[2, 8] = [2, 0, 0], 1
INSERTS[3, 1] = 5  # no view has so many
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llava": (LLAMA, {"positions": "rotary", "inserted": {"image": MlpProjector(), "audio": LinearProjector()}}),
    "local": (
        {"window": 3},
        {
            "scaled": True,
            "prefix": {"video": LinearProjector()},
            "inserted": {"image": LinearProjector(), "audio": None},
        },
    ),
}


class Inserting(NamedTuple):
    """A decoder that is told where the tokens stand by its last argument."""

    decoder: Any

    def init(self, key: Any, *args: Any) -> Any:
        return self.decoder.init(key, *args[:-1], inserts=args[-1])


def applied(decoder: Any, params: Any, *args: Any, inserts: Any = None) -> np.ndarray:
    return np.asarray(
        jax.jit(lambda params, *args: decoder.apply(params, *args[:-1], inserts=args[-1]))(params, *args, inserts)
    )


def made(name: str) -> tuple[TextDecoder, Any]:
    blocks, more = CASES[name]
    sizes: dict[str, Any] = {"width": WIDTH, "depth": 2, "heads": 4, "mlp_dim": 12, "norm_eps": 1e-5, **blocks}
    decoder = TextDecoder(vocab=V, length=SLOTS, blocks=DecoderBlocks(**sizes), **more)
    return decoder, oracle.params_of(Inserting(decoder), IDS, MASK, views(name), INSERTS)


def views(name: str, junk: float = 0.0) -> dict[str, Any]:
    """The second row's picture has one token less, the third has none, and the first has no sound."""
    random, found = np.random.default_rng(1), {}
    lacking = {"image": [(1, 1), (2, slice(None))], "audio": [(0, slice(None))], "video": [(1, slice(None)), (2, 0)]}
    sizes = {"image": (3, 6), "audio": (2, WIDTH), "video": (2, 6)}
    for view in (*CASES[name][1].get("prefix", ()), *CASES[name][1]["inserted"]):
        tokens, real = random.normal(size=(B, *sizes[view])).astype(np.float32), np.ones((B, sizes[view][0]), bool)
        for place in lacking[view]:
            real[place] = False
        found[view] = np.where(real[..., None], tokens, junk).astype(np.float32), real
    return found


def whole(decoder: Any, params: Any, seen: Any, ids: Any = IDS) -> Any:
    return applied(decoder, params, ids, MASK, seen, inserts=INSERTS)


def real_places(seen: Any) -> np.ndarray:
    """Which places of each text hold a word or a token that is there."""
    real = MASK.copy()
    for row, place in zip(*np.nonzero(INSERTS >= 0), strict=True):
        number = INSERTS[row, place]
        real[row, place] &= number < 5 and bool(
            np.concatenate([seen["image"][1], seen["audio"][1]], axis=1)[row, number]
        )
    return real


@pytest.mark.parametrize("name", CASES)
def test_it_equals_loops_over_each_example_s_words_and_tokens_that_are_there(name: str) -> None:
    decoder, params = made(name)
    seen, own = views(name), oracle.as64(params)["params"]
    got, real = whole(decoder, params, seen), real_places(views(name))
    assert 4 < (MASK & ~real).sum() < 12
    for row in range(B):
        tokens = {
            view: projected(own[f"{way}_{view}"], seen[view][0][row].astype(np.float64))
            if projector
            else seen[view][0][row]
            for way in ("prefix", "inserted")
            for view, projector in getattr(decoder, way).items()
        }
        joined = np.concatenate([tokens["image"], tokens["audio"]])
        prefix = tokens["video"][seen["video"][1][row]] if decoder.prefix else np.zeros((0, WIDTH))
        numbers = INSERTS[row][real[row]]
        within = {place: joined[number] for place, number in enumerate(numbers) if number >= 0}
        want = states(decoder, own, IDS[row][real[row]], prefix, within=within)
        np.testing.assert_allclose(got[row][real[row]], want, atol=2e-5, err_msg=f"row {row}")


@pytest.mark.parametrize("name", CASES)
def test_piece_by_piece_it_gives_what_the_whole_text_does(name: str) -> None:
    """The pieces cut pictures apart, and later ones bring their own."""
    decoder, params = made(name)
    seen, real = views(name), real_places(views(name))
    full = whole(decoder, params, seen)
    prefill = jax.jit(lambda p, *args: decoder.apply(p, *args, slots=SLOTS, method="prefill"))
    extend = jax.jit(lambda p, *args: decoder.apply(p, *args, method="extend"))
    got, cache = prefill(params, IDS[:, :2], MASK[:, :2], seen, None, INSERTS[:, :2])
    np.testing.assert_allclose(np.where(real[:, :2, None], got - full[:, :2], 0), 0, atol=1e-5)
    within = {view: seen[view] for view in decoder.inserted}
    for place in (slice(2, 3), *(slice(start, start + 2) for start in (3, 5, 7))):
        got, cache = extend(params, IDS[:, place], cache, MASK[:, place], within, INSERTS[:, place])
        np.testing.assert_allclose(np.where(real[:, place, None], got - full[:, place], 0), 0, atol=1e-5)
    ahead = np.array([2, 2, 2, 2]) if decoder.prefix else 0
    np.testing.assert_array_equal(cache.slot, ahead + MASK.sum(axis=1))
    there = seen["video"][1].sum(axis=1) if decoder.prefix else 0
    np.testing.assert_array_equal(cache.place, there + real.sum(axis=1))


def test_what_is_not_there_changes_nothing_and_neither_does_a_placeholder() -> None:
    decoder, params = made("local")
    got = whole(decoder, params, views("local"))
    ids = np.where((INSERTS >= 0) | ~MASK, V - 1, IDS).astype(np.int32)
    other = whole(decoder, params, views("local", junk=50.0), ids)
    real = real_places(views("local"))
    np.testing.assert_allclose(np.where(real[..., None], got - other, 0), 0, atol=1e-5)


def test_a_text_without_places_needs_no_such_view() -> None:
    decoder, params = made("llava")
    none = np.full_like(INSERTS, -1)
    want = applied(decoder, params, IDS, MASK, views("llava"), inserts=none)
    got = applied(decoder, params, IDS, MASK)
    np.testing.assert_allclose(np.where(MASK[..., None], got - want, 0), 0, atol=1e-6)


def test_what_cannot_be_read_says_why() -> None:
    decoder, params = made("llava")
    with pytest.raises(UserError, match="was given no tokens of 'audio'"):
        decoder.apply(params, IDS, MASK, {"image": views("llava")["image"]}, inserts=INSERTS)
    plain = TextDecoder(vocab=V, length=SLOTS, blocks=DecoderBlocks(width=WIDTH, depth=1, heads=2))
    with pytest.raises(UserError, match=r"a TextDecoder with inserted=\{\} was told where"):
        jax.eval_shape(Inserting(plain).init, jax.random.key(0), IDS, MASK, {}, INSERTS)
    narrow = plain.clone(inserted={"image": None})
    with pytest.raises(UserError, match="the tokens of 'image' are 6 wide and the decoder's 16"):
        jax.eval_shape(
            Inserting(narrow).init, jax.random.key(0), IDS, MASK, {"image": views("llava")["image"]}, INSERTS
        )
    with pytest.raises(UserError, match="'image' is in prefix and in inserted: a view is read in one way"):
        jax.eval_shape(plain.clone(inserted={"image": None}, prefix={"image": None}).init, jax.random.key(0), IDS)
    with pytest.raises(UserError, match="was given the view 'video', but the views that it reads are audio, image"):
        decoder.apply(params, IDS[:, :1], None, None, {"video": None}, method="extend")
    recurrent = RecurrentDecoder(vocab=V, length=SLOTS, width=4, embed_width=4)
    with pytest.raises(UserError, match=r"a RecurrentDecoder with inserted=\{\} was told where"):
        jax.eval_shape(Inserting(recurrent).init, jax.random.key(0), IDS, MASK, {}, INSERTS)
