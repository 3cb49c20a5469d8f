"""What a model writes behind messages, with pictures where they stand, is what the whole pass says of them."""

from typing import Any

import fiddle as fdl
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data import SentencePiece, TokenizeConversation
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.errors import UserError
from mmjax.inference.model import Model
from mmjax.models import LinearProjector
from tests.inference.writing.writing_models import VOCAB, captions, made

SHOWN: dict[str, Any] = {"type": "image"}
LONG = [
    {"role": "user", "content": "a dog"},
    {"role": "assistant", "content": "rolls"},
    {"role": "user", "content": ["the", SHOWN, "cat"]},
]


@pytest.fixture(scope="module")
def talker(tokenizer: PieceTokenizer) -> Model:
    config = captions.as_buildable()
    decoder = config.objectives["caption"].decoder
    decoder.cross, decoder.context, decoder.length = "none", {}, 48
    decoder.inserted = {"image": fdl.Config(LinearProjector)}
    config.objectives["caption"].alone = True
    config.data.transforms["text"] = (fdl.Config(TokenizeConversation, SentencePiece(VOCAB), 40, slots={"image": 4}),)
    return made(config, tokenizer)


@pytest.fixture(scope="module")
def dense(talker: Model) -> Any:
    """The words of one prompt alone, by a pass over the whole text for each, and their log-probabilities."""
    generation, decoder = talker.generation(), talker.experiment.objectives["caption"].decoder
    own = jax.device_put({"params": talker.params["objectives_caption"]["decoder"]})
    tower = {"params": talker.params["towers_image"]}

    @jax.jit
    def logits_of(own: Any, row: Any, views: Any, slots: Any) -> Any:
        states = decoder.apply(own, row, None, views, inserts=slots if views else None)
        return decoder.apply(own, states, method="logits")

    def found(prompt: Any, picture: Any, most: int) -> tuple[list[int], list[float]]:
        ids, _, inserts = generation.prompts.given(prompt, [] if picture is None else ["image"])
        views: Any = {}
        if picture is not None:
            views = {"image": talker.towers["image"].apply(tower, picture[None], method="tokens")}
        row, slots, words, scores = np.zeros((1, 48), np.int32), np.full((1, 48), -1, np.int32), [], []
        row[0, : len(ids)], slots[0, : len(ids)] = ids, inserts
        for place in range(len(ids), len(ids) + most):
            logits = logits_of(own, row, views, slots)[0, place - 1]
            words.append(int(logits[: generation.writer.vocab].argmax()))
            scores.append(float(jax.nn.log_softmax(logits)[words[-1]]))
            row[0, place] = words[-1]
            if words[-1] in generation.writer.eos:
                break
        return words, scores

    return found


def test_prompts_of_all_lengths_with_pictures_at_all_places_are_each_as_alone(
    talker: Model, dense: Any, pictures: Any
) -> None:
    prompts = [
        [{"role": "user", "content": [SHOWN, {"type": "text", "text": "the cat"}]}],
        LONG,
        "a big ball",
    ]
    found = talker.generate(prompts, image=list(pictures), max_new_tokens=6, details=True)
    for prompt, picture, one in zip(prompts, pictures, found, strict=True):
        words, scores = dense(prompt, picture, 6)
        assert list(one.ids) == words
        np.testing.assert_allclose(one.log_probabilities, scores, atol=1e-5)
    assert len({float(one.log_probabilities[0]) for one in found}) == 3
    assert talker.generate(LONG, image=pictures[1], max_new_tokens=6) == found[1].text
    other = talker.generate(LONG, image=pictures[0], max_new_tokens=6, details=True)
    assert abs(other.log_probabilities[0] - found[1].log_probabilities[0]) > 1e-4
    shown = [{"role": "user", "content": [SHOWN]}]
    alone = talker.generate(shown, image=pictures[1], max_new_tokens=6, details=True)
    caption = talker.caption(pictures[1], max_new_tokens=6, details=True)
    np.testing.assert_array_equal(caption.log_probabilities, alone.log_probabilities)
    (beam,) = talker.generate([LONG], image=pictures[1], max_new_tokens=6, beams=2, details=True)
    assert beam.score >= found[1].score - 1e-4
    likely = talker.log_likelihood([found[1].text.strip() or "a"], LONG, image=pictures[1])
    assert np.isfinite(likely).all()


def test_messages_without_a_picture_are_text_alone(talker: Model, dense: Any) -> None:
    asked = [{"role": "user", "content": "the cat"}]
    found = talker.generate(asked, max_new_tokens=5, details=True)
    words, scores = dense("the cat", None, 5)
    assert list(found.ids) == words
    np.testing.assert_allclose(found.log_probabilities, scores, atol=1e-5)


def test_what_cannot_be_asked_says_why(talker: Model, speaker: Model, pictures: Any) -> None:
    with pytest.raises(UserError, match=r"have 1 of image, and none is given: give image=\.\.\. beside"):
        talker.generate(LONG)
    with pytest.raises(
        UserError, match=r"generate\(\) was given 'image', but the inputs that 'caption' reads are none"
    ):
        speaker.generate("the cat", image=pictures[0])
    with pytest.raises(UserError, match="no text: the model's texts are no conversations"):
        speaker.generate(LONG)
    short = talker.generation().writer
    with pytest.raises(UserError, match="a prompt has places for 6 tokens of image, and there are 4"):
        short.read([[1, 2]], {"image": (jnp.zeros((1, 4, 16)), jnp.ones((1, 4), bool))}, most=1, inserts=[[-1, 5]])
