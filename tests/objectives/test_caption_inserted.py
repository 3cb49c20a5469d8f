"""Pictures within a text: they are read and never predicted, and the places of the text are those that are filled."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import Blocks, DecoderBlocks, LinearProjector, RecurrentDecoder, Resampler, TextDecoder, ViT
from mmjax.models.towers.bare import Incoming
from mmjax.objectives import Caption, Pretrainer
from tests.objectives.test_caption import batch, drawn, gradient
from tests.objectives.toys import VOCAB, ToyTower, assert_same

B, L = 16, 8
BLOCKS = DecoderBlocks(width=8, depth=2, heads=2)
DECODER = TextDecoder(vocab=VOCAB, length=24, blocks=BLOCKS, positions="rotary", inserted={"image": LinearProjector()})
GIVEN: Any = batch("prefix")
GIVEN["text_slots"] = np.full((B, L), -1, np.int32)
GIVEN["text_slots"][::2, 1:4] = [0, 7, 11]
GIVEN["text_slots"][1, 2:4] = [5, 6]  # of a picture that isn't there
GIVEN["text_slots"][5, 2:6] = [3, 1, 1, 2]
GIVEN["text_loss"] = np.ones((B, L), bool)


def build(microbatches: int = 1) -> Any:
    objective = Caption(DECODER, reads=("image",), alone=True)
    return Pretrainer({"image": ToyTower("image")}, {"words": objective}, microbatches=microbatches)


@pytest.fixture(scope="module")
def whole() -> Any:
    variables = drawn(build(), GIVEN)
    return variables, gradient(build())(variables, GIVEN)


def test_the_loss_is_that_of_words_alone_which_read_the_picture(whole: Any) -> None:
    variables, ((loss, _), _) = whole
    params = variables["params"]
    tokens, real = ToyTower("image").apply({"params": params["towers_image"]}, GIVEN["image"], method="tokens")
    own = {"params": params["objectives_words"]["decoder"]}
    views = {"image": (jnp.where(GIVEN["image_valid"][:, None, None], tokens, 0), real & GIVEN["image_valid"][:, None])}

    @jax.jit
    def logits_of(ids: Any, mask: Any, slots: Any) -> Any:
        states: Any = DECODER.apply(own, ids, mask, views, GIVEN["text_prefix"], inserts=slots)
        logits: Any = DECODER.apply(own, states, method="logits")
        return jax.nn.log_softmax(logits)

    said = logits_of(GIVEN["text"][:, :-1], GIVEN["text_mask"][:, :-1], GIVEN["text_slots"][:, :-1])
    total, count = 0.0, 0
    for row in np.flatnonzero(GIVEN["text_valid"]):
        for place in range(max(1, GIVEN["text_prefix"][row]), GIVEN["text_mask"][row].sum()):
            if GIVEN["text_slots"][row, place] < 0:
                total, count = total - float(said[row, place - 1, GIVEN["text"][row, place]]), count + 1
    assert count > B
    np.testing.assert_allclose(loss, total / count, rtol=1e-5)


def test_neither_the_cut_nor_what_stands_where_a_picture_is_or_lacks_changes_anything(whole: Any) -> None:
    variables, expected = whole
    ids = np.where(GIVEN["text_slots"] >= 0, 7, GIVEN["text"])
    picture = np.where(GIVEN["image_valid"][:, None, None], GIVEN["image"], np.nan).astype(np.float32)
    lacking = (~GIVEN["image_valid"])[:, None] & (GIVEN["text_slots"] >= 0)
    assert lacking.any()
    assert not np.array_equal(ids, GIVEN["text"])
    assert_same(gradient(build(2))(variables, GIVEN | {"text": ids, "image": picture}), expected, 1e-5)
    kernel = expected[1]["params"]["objectives_words"]["decoder"]["inserted_image"]["dense"]["kernel"]
    assert np.abs(kernel).max() > 1e-3


TEXT = Incoming((16,), "int32", ("loss", "slots"), None, VOCAB, (("image", 5),))
IMAGE = Incoming((16, 16, 3), "uint8")
VIT = ViT(patch=8, size=16, pooling="cls", cls=True, blocks=Blocks(width=8, depth=1, heads=2))
NONE = Incoming((16,), "int32", ("loss",), None, VOCAB)


@pytest.mark.parametrize(
    ("decoder", "text", "message"),
    [
        (DECODER, None, None),
        (DECODER, TEXT.__class__(**{**vars(TEXT), "slots": ()}), None),
        (DECODER, TEXT.__class__(**{**vars(TEXT), "slots": (("image", 4),)}), "have 4 places .* make 5 tokens of it"),
        (DECODER, TEXT.__class__(**{**vars(TEXT), "slots": (("audio", 5),)}), "of audio, in this .*inserted is image:"),
        (DECODER, NONE, r"o.decoder.inserted=\['image'\], and the texts of 'text' have no places"),
        (DECODER.clone(inserted={}, prefix={"image": None}), TEXT, "o.decoder puts none there"),
        (
            DECODER.clone(inserted={"image": Resampler(queries=3, blocks=Blocks(width=8, depth=1, heads=2))}),
            TEXT,
            "make 3 tokens of it: set slots={'image': 3}",
        ),
        (RecurrentDecoder(vocab=VOCAB, length=16, width=4, embed_width=4, prefix={"image": None}), TEXT, "puts none"),
        (DECODER.clone(inserted={}), NONE, r"o.decoder reads nothing \(context, prefix, inserted\)"),
    ],
)
def test_the_places_of_the_text_are_those_that_are_filled(decoder: Any, text: Any, message: str | None) -> None:
    objective, inputs = Caption(decoder, reads=("image",)), {"image": IMAGE, "text": text or TEXT}
    if message is None:
        objective.check_parts("o", {"image": VIT}, inputs)
        return
    with pytest.raises(UserError, match=message):
        objective.check_parts("o", {"image": VIT}, inputs)
