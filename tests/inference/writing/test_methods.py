"""What a loaded model writes is what its decoder gives word by word, of the prompt and the towers' tokens."""

from typing import Any

import numpy as np
import pytest

from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.errors import UserError
from mmjax.inference.model import Model
from mmjax.interop.bundle import Bundle
from tests.evaluate.writing.dense import all_logits, dense_greedy, log_softmax
from tests.inference.writing.writing_models import SIDE, captions, language, made


def decoder_of(model: Model) -> tuple[Any, Any]:
    return model.experiment.objectives["caption"].decoder, model.params["objectives_caption"]["decoder"]


def views_of(model: Model, picture: np.ndarray) -> dict[str, Any]:
    params = {"params": model.params["towers_image"]}
    return {"image": model.towers["image"].apply(params, picture[None], method="tokens")}


def test_a_caption_is_the_dense_decoder_s(captioner: Model, tokenizer: PieceTokenizer, pictures: np.ndarray) -> None:
    found = captioner.caption(list(pictures), max_new_tokens=9, details=True)
    assert len({one.text for one in found}) > 1  # it looks at the picture
    for picture, one in zip(pictures, found, strict=True):
        views = views_of(captioner, picture)
        ids, scores = dense_greedy(
            *decoder_of(captioner), [tokenizer.bos], 9, [tokenizer.eos], views, tokenizer.vocab_size
        )
        assert list(one.ids) == ids
        np.testing.assert_allclose(one.log_probabilities, scores, atol=1e-4)
        assert one.text == tokenizer.decode(ids)
        assert captioner.caption(picture, max_new_tokens=9) == one.text


def test_a_prompt_is_cleaned_and_gone_on_from(
    captioner: Model, tokenizer: PieceTokenizer, pictures: np.ndarray
) -> None:
    ids = [tokenizer.bos, *tokenizer.encode("a red dog")]
    wanted, _ = dense_greedy(
        *decoder_of(captioner), ids, 6, [tokenizer.eos], views_of(captioner, pictures[0]), tokenizer.vocab_size
    )
    one = captioner.generate("A Red DOG", image=pictures[0], max_new_tokens=6, details=True)
    assert list(one.ids) == wanted
    assert "a red dog" + one.text == tokenizer.decode([*ids, *wanted])


def test_prompts_and_pictures_are_paired_or_shared(captioner: Model, pictures: np.ndarray) -> None:
    prompts = ["a red", "the", "a"]
    both = captioner.generate(prompts, image=list(pictures), max_new_tokens=5)
    assert both == [captioner.generate(p, image=i, max_new_tokens=5) for p, i in zip(prompts, pictures, strict=True)]
    shared = captioner.generate(prompts, image=pictures[1], max_new_tokens=5)
    assert shared == [captioner.generate(p, image=pictures[1], max_new_tokens=5) for p in prompts]
    assert captioner.caption(list(pictures), "the", max_new_tokens=5) == [
        captioner.generate("the", image=i, max_new_tokens=5) for i in pictures
    ]


def test_draws_are_by_seed_and_number_whatever_the_batch(captioner: Model, pictures: np.ndarray) -> None:
    many = [pictures[i % 3] for i in range(6)]  # more than a batch
    options: dict[str, Any] = {"temperature": 1.2, "top_p": 0.95, "max_new_tokens": 8, "seed": 5}
    found = captioner.caption(many, n=2, **options)
    assert [len(two) for two in found] == [2] * 6
    assert len({text for two in found for text in two}) > 6
    assert captioner.caption(many, **options) == [two[0] for two in found]
    assert captioner.caption(many[:1], n=2, **options)[0] == found[0]
    assert captioner.caption(many, n=2, **{**options, "seed": 6}) != found


def test_a_stream_is_the_text_in_pieces(captioner: Model, pictures: np.ndarray) -> None:
    for options in ({}, {"temperature": 1.0, "seed": 3}, {"temperature": 1.0, "seed": 3, "max_new_tokens": 1}):
        pieces = list(captioner.stream("the", image=pictures[0], **options))
        assert "".join(pieces) == captioner.generate("the", image=pictures[0], **options)
    assert len(list(captioner.stream("the", image=pictures[0], temperature=1.0, seed=3))) > 3


def test_a_stop_string_cuts_each_text_where_it_has_it(captioner: Model, pictures: np.ndarray) -> None:
    options: dict[str, Any] = {"temperature": 1.2, "seed": 2, "details": True, "n": 4, "max_new_tokens": 22}
    whole = [one for texts in captioner.caption(list(pictures), **options) for one in texts]
    stop = next(text[6:9] for text in (one.text for one in whole) if len(text) > 20)
    found = [one for texts in captioner.caption(list(pictures), stop=stop, **options) for one in texts]
    assert any(one.ending == "stop" for one in found)
    for one, full in zip(found, whole, strict=True):
        assert one.text == full.text.partition(stop)[0]
        assert one.ids == full.ids[: len(one.ids)]
        assert (one.ending == "stop") == (stop in full.text)
        np.testing.assert_allclose(one.log_probabilities, full.log_probabilities[: len(one.ids)], atol=1e-5)
    streamed = "".join(captioner.stream(image=pictures[0], temperature=1.2, seed=2, stop=stop, max_new_tokens=22))
    assert streamed == found[0].text


def test_beams_give_the_best_texts(captioner: Model, tokenizer: PieceTokenizer, pictures: np.ndarray) -> None:
    options: dict[str, Any] = {"max_new_tokens": 6, "details": True}
    found = captioner.caption(list(pictures), beams=4, n=3, **options)
    for picture, texts in zip(pictures, found, strict=True):
        assert [one.score for one in texts] == sorted((one.score for one in texts), reverse=True)
        views = views_of(captioner, picture)
        for one in texts:
            shares = log_softmax(all_logits(*decoder_of(captioner), [tokenizer.bos, *one.ids], views))
            own = shares[np.arange(len(one.ids)), one.ids]
            np.testing.assert_allclose(one.log_probabilities, own, atol=1e-4)
            np.testing.assert_allclose(one.score, own.mean(), atol=1e-4)
            assert one.text == tokenizer.decode(one.ids)
    assert captioner.caption(pictures[0], beams=1, max_new_tokens=6) == captioner.caption(pictures[0], max_new_tokens=6)


def test_candidates_are_scored_with_their_end(
    captioner: Model, tokenizer: PieceTokenizer, pictures: np.ndarray
) -> None:
    texts = ["a cat", "a big red ball", "the dog", "cat", "rolls to the left"]
    found = captioner.log_likelihood(texts, image=list(pictures))
    assert found.shape == (3, 5)
    for row, picture in enumerate(pictures):
        for place, text in enumerate(texts):
            ids = [*tokenizer.encode(text), tokenizer.eos]
            shares = log_softmax(
                all_logits(*decoder_of(captioner), [tokenizer.bos, *ids], views_of(captioner, picture))
            )
            np.testing.assert_allclose(found[row, place], shares[np.arange(len(ids)), ids].sum(), rtol=1e-4)
    alone = captioner.log_likelihood(texts, image=pictures[2], mean=True)
    lengths = [len(tokenizer.encode(text)) + 1 for text in texts]
    np.testing.assert_allclose(alone, found[2] / lengths, rtol=1e-4)


def test_a_model_of_text_alone_writes(speaker: Model, tokenizer: PieceTokenizer) -> None:
    found = speaker.generate(["", "the dog"], max_new_tokens=7, details=True)
    for prompt, one in zip(["", "the dog"], found, strict=True):
        ids = [tokenizer.bos, *tokenizer.encode(prompt)]
        wanted, _ = dense_greedy(*decoder_of(speaker), ids, 7, [tokenizer.eos], vocab=tokenizer.vocab_size)
        assert list(one.ids) == wanted


def test_what_cannot_be_had_is_named(captioner: Model, speaker: Model, pictures: np.ndarray) -> None:
    def refused(message: str, model: Model = captioner, prompt: Any = "", **options: Any) -> None:
        given = {"image": pictures[0]} if model is captioner and "image" not in options else {}
        with pytest.raises(UserError, match=message):
            model.generate(prompt, **given | options)

    refused("n=0 texts of each prompt", n=0, temperature=1.0)
    refused("n=2 texts of temperature=0 are all the same", n=2)
    refused("max_new_tokens=0 must be a whole number of at least 1", max_new_tokens=0)
    refused("seed=-1 must be a whole number from 0", seed=-1)
    refused("temperature=-1", temperature=-1)
    refused("top_p=1.5 must be above 0 and at most 1", temperature=1.0, top_p=1.5)
    refused("beams=99 are more than the [0-9]+ words", beams=99)
    refused("n=3 texts are more than the 2 that beams=2", beams=2, n=3)
    refused("beams find likely texts, and draw none", beams=2, temperature=1.0)
    refused("beams end with the model's own end alone", beams=2, stop="a")
    refused("stop='Q' is never written", stop="Q")
    refused(r"a prompt of \d+ tokens is \d+ more than the 24 that the decoder reads", prompt="the dog " * 20)
    refused("prompt=5 is no text", prompt=[5])
    refused("is a text, or a list of texts", prompt=5)
    refused("was given 2 of image, 3 of prompt", image=list(pictures[:2]), prompt=["a", "b", "c"])
    refused("was given no example", image=[])
    refused("needs image=...: 'caption' writes of nothing else", image=None)
    refused("was given 'image', but the inputs that 'caption' reads are none", speaker, image=pictures[0])
    refused("was given 'picture', but the inputs that 'caption' reads are image", picture=pictures[0])
    refused("asks 'cap', but the Caption objectives are caption; did you mean caption", objective="cap")
    with pytest.raises(UserError, match="give a list of one text or more"):
        captioner.log_likelihood("a cat", image=pictures[0])
    with pytest.raises(UserError, match=r"more than the decoder reads: shorten it"):
        captioner.log_likelihood(["the dog " * 20], image=pictures[0])
    with pytest.raises(UserError, match="stream\\(\\) writes one text"):
        captioner.stream(image=list(pictures))


def test_an_empty_prompt_needs_what_begins_a_text(tokenizer: PieceTokenizer) -> None:
    class Unbegun(PieceTokenizer):
        def __init__(self, model: bytes):
            super().__init__(model)
            self.bos = None

    config = language.as_buildable()
    config.data.transforms["text"][0].bos = False
    model = made(config, Unbegun(tokenizer.model))
    assert isinstance(model.generate("the dog", max_new_tokens=2), str)
    with pytest.raises(UserError, match="an empty prompt gives the decoder nothing to begin with"):
        model.generate("")


def test_a_model_that_was_not_taught_to_write_says_what_it_was_taught(tokenizer: PieceTokenizer) -> None:
    bare = Model(Bundle(captions.as_buildable(), made(captions.as_buildable(), tokenizer).variables, {}, "made"))
    with pytest.raises(UserError, match="made has no tokenizer for 'text', whose words it would write"):
        bare.generate(image=np.zeros((SIDE, SIDE, 3), np.uint8))
