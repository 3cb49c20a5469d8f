"""Hugging Face's BlipForQuestionAnswering (Li et al. 2022, arXiv:2201.12086): BLIP's answers to questions on pictures.

The question is read with its picture by the text's encoder, as pairs are matched; the answer is written by the
captioner's decoder, whose layers attend to the question's tokens in the place of the picture's. Answers begin with
[DEC] and end with [SEP], as captions do; questions are framed as their tokenizer says.
"""

from typing import Any

from mmjax.errors import UserError
from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values
from mmjax.interop.hf import blip, blip_caption
from mmjax.interop.hf.family import Family
from mmjax.interop.hf.language_model import held
from mmjax.interop.parameter_rules import Rule
from mmjax.interop.parts import Parts

ANSWER = "answer"  # the objective, and the input whose words it writes


# --- config.json ---


def model_parts(config: Values) -> Parts:
    """Both towers, the fusion by the text's trunk, and the objective that holds the decoder."""
    config_keys.settings(config, "config.json", blip.DEFAULTS, {"tie_word_embeddings": True})
    seen, read = blip.inner_settings(config)
    towers, fusion = blip.encoders(seen, read, pooling="cls")
    told: dict[str, Any] = {"text": ANSWER, "fusion": blip.FUSION}
    objective = blip_caption.objective(read, "text", ("image", "text"), **told)
    return Parts(towers, {ANSWER: objective}, {blip.FUSION: fusion})


def describe(built: Parts) -> dict[str, Any]:
    """The inverse of `model_parts`."""
    image, text = built.towers["image"], built.towers["text"]
    ((objective,), decoder) = built.objectives.values(), held(built).decoder
    if not text.trunk.cross:
        raise UserError("its text encoder attends to pictures, and towers.text.trunk.cross=False: set cross=True")
    sizes = (text.vocab, text.length), (decoder.vocab, decoder.length)
    if sizes[0] != sizes[1] or config_keys.keys_of(text.trunk.blocks) != config_keys.keys_of(decoder.blocks):
        raise UserError(
            f"its text encoder and decoder are of one size, and towers.text has vocab, length={sizes[0]}, and the "
            f"decoder {sizes[1]}, or their blocks differ: give both the same"
        )
    told = blip.text_of(decoder.blocks, decoder.vocab, decoder.length, image)
    return {
        "vision_config": blip.image_of(image),
        "text_config": told | {"label_smoothing": objective.label_smoothing},
    }


# --- parameters ---


def rules(built: Parts) -> list[Rule]:
    """Both towers and the decoder; the fusion has no parameters of its own."""
    return [
        *blip.image_rules(built.towers["image"]),
        *blip.text_rules(built.towers["text"]),
        *blip_caption.writer_rules(*held(built)),
    ]


FAMILIES = (
    Family(
        "blip",
        "BlipForQuestionAnswering",
        model_parts,
        describe,
        rules,
        renamed=blip_caption.renamed,
        ignored=blip_caption.unread,
        text_config="text_config",
        answers=ANSWER,
        frame=("bos_token_id", "sep_token_id"),
    ),
)
