"""What is given by hand is read by the kind of input that the chain ends in, whatever the modality is called."""

import warnings

import numpy as np
import pytest

from mmjax.data.chains import Chains
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.transforms.audio import CropOrPad, DecodeAudio
from mmjax.data.transforms.image import Decode, Resize
from mmjax.data.transforms.text import PickCaption, Tokenize
from mmjax.errors import UserError
from mmjax.inference.inputs import Inputs
from tests.data.conftest import picture_bytes, sound_bytes, tone
from tests.depth import ReadDepth

WORDS = SentencePiece(100, model_type="word")


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    text, image, audio = (PickCaption(), Tokenize(WORDS, 4)), (Decode(), Resize(8)), (DecodeAudio(8_000), CropOrPad(80))
    tokenizer = PieceTokenizer(WORDS.train(["red cat", "blue dog"]))
    transforms = {"text": text, "caption": text, "image": image, "sketch": image, "audio": audio, "music": audio}
    return Inputs(Chains(transforms | {"depth": (ReadDepth(8),)}, {"text": tokenizer, "caption": tokenizer}))


def test_modalities_of_one_kind_are_read_alike(inputs, tmp_path):
    (tmp_path / "a.png").write_bytes(picture_bytes((9, 8, 7)))
    waves = (tone(440).astype(np.float32) / 2**15, 16_000)
    for one, other, given in (
        ("image", "sketch", tmp_path / "a.png"),
        ("image", "sketch", np.full((3, 4, 3), 7, np.uint8)),
        ("text", "caption", "red cat"),
        ("text", "caption", ""),
        ("text", "caption", np.array([1, 2])),
        ("audio", "music", waves),
        ("audio", "music", sound_bytes(tone(440))),
    ):
        with warnings.catch_warnings(action="ignore"):  # of what is cut off
            assert inputs.listed(other, given)[1]
            mine, theirs = inputs.row(one, given), inputs.row(other, given)
        assert list(theirs) == [name.replace(one, other) for name in mine]
        for a, b in zip(mine.values(), theirs.values(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("modality", "given", "message"),
    [
        ("sketch", 3, r"sketch=3: it takes a PIL image"),
        ("sketch", np.zeros((4, 4, 3), np.float32), r"the sketch is a float array \[4, 4, 3\]: floats are taken as"),
        ("music", (16_000, np.zeros(9)), r"music=\(sample_rate, waveform\) is the wrong way round"),
        ("music", np.zeros((2, 9), np.float32), r"music is an array \[2, 9\]: sound of several channels is"),
        ("caption", {}, r"caption=\{\}: it takes a string, or token ids"),
        (
            "depth",
            np.zeros((2, 2, 2, 8, 8), np.float32),
            r"depth is an array \[2, 2, 2, 8, 8\]; it takes an",
        ),
        ("depth", b"broken", r"the depth: no array: "),
    ],
)
def test_errors_call_a_modality_by_its_name(inputs, modality, given, message):
    def read() -> None:
        items, _ = inputs.listed(modality, given)
        inputs.row(modality, *items)

    with pytest.raises(UserError, match=message):
        read()


def test_an_array_of_ones_own_is_one_or_several_by_its_axes(inputs):
    several = np.arange(2 * 64, dtype=np.float32).reshape(2, 8, 8, 1)
    assert inputs.listed("depth", several[0])[1]
    items, alone = inputs.listed("depth", several)
    assert not alone
    rows = [inputs.row("depth", item, place) for place, item in enumerate(items)]
    np.testing.assert_allclose(np.stack([row["depth"] for row in rows]), several / 10, rtol=1e-6)


def test_a_chain_that_gives_another_shape_is_told(inputs, monkeypatch):
    monkeypatch.setattr(inputs.of["depth"], "chain", [lambda value, rng: np.zeros(3)])
    with pytest.raises(UserError, match=r"the depth: its chain makes \[3\] of it, and the model reads \[8, 8, 1\]"):
        inputs.row("depth", np.zeros((8, 8, 1), np.float32))
