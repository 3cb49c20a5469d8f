import logging

import numpy as np
import pytest

from mmjax.data.bad_example import KINDS
from mmjax.data.chains import Chains, captions, chain_specs, evaluation, identity, row_spec
from mmjax.data.paths import File
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.transforms.audio import CropOrPad, DecodeAudio, PickUtterance
from mmjax.data.transforms.audio_input import SoundInput
from mmjax.data.transforms.contract import Spec, Transform
from mmjax.data.transforms.image import Decode, RandomAffine, RandomFlip, Resize, ResizeShorter
from mmjax.data.transforms.image_input import PictureInput
from mmjax.data.transforms.text import Lowercase, PickCaption, Tokenize
from mmjax.data.transforms.text_input import TextInput
from mmjax.errors import UserError
from tests.data.conftest import picture_bytes, sound_bytes, tone

WORDS = SentencePiece(100, model_type="word")
TRANSFORMS = {
    "image": (Decode(), Resize(8), RandomAffine(0.2)),
    "text": (PickCaption(), Lowercase(), Tokenize(WORDS, 4)),
    "audio": (PickUtterance(), DecodeAudio(), CropOrPad(100)),
}
RECORD = {
    "id": "r",
    "image": picture_bytes((9, 9, 9)),
    "text": "Red cat",
    "audio": [sound_bytes(tone(440)), sound_bytes(tone(500))],
}


@pytest.fixture(scope="module")
def chains() -> Chains:
    return Chains(TRANSFORMS, {"text": PieceTokenizer(WORDS.train(["red cat", "blue dog"]))})


def test_a_chain_says_what_it_ends_in():
    assert chain_specs(TRANSFORMS) == {
        "image": Spec((8, 8, 3), "uint8", kind=PictureInput),
        "text": Spec((4,), "int32", masked=True, kind=TextInput),
        "audio": Spec((100,), "int16", masked=True, kind=SoundInput, rate=16_000),
    }
    assert row_spec(chain_specs(TRANSFORMS))["audio_mask"] == ((100,), "bool")
    for chain, last in [((), "nothing"), ((Decode(),), "Decode"), ((Resize(8), ResizeShorter(4)), "ResizeShorter")]:
        with pytest.raises(UserError, match=f"chain of 'image' ends in {last}, whose result has no fixed shape"):
            chain_specs({"image": chain})


def test_a_row_holds_every_array_and_missing_ones_are_zeros(chains):
    row = chains.row(RECORD, evaluation)
    assert {name: (value.shape, value.dtype.name) for name, value in row.items()} == row_spec(chains.specs)
    assert all(row[f"{modality}_valid"] for modality in TRANSFORMS)
    assert row["text_mask"].tolist() == [True, True, True, False]
    nothing = chains.row({"id": "n", "text": "red"}, evaluation)
    assert {name: (value.shape, value.dtype.name) for name, value in nothing.items()} == row_spec(chains.specs)
    assert not nothing["image"].any()
    assert not nothing["image_valid"]
    assert not nothing["image_bad"]  # it is only missing
    assert nothing["text_valid"]


def test_what_is_bad_is_zeros_and_named_in_the_log_a_few_times(chains, caplog):
    broken = {**RECORD, "image": File("/nowhere/a.png"), "text": "", "audio": b"noise"}
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            row = chains.row(broken, evaluation)
    codes = {modality: int(row.pop(f"{modality}_bad")) for modality in TRANSFORMS}
    assert {modality: KINDS[code - 1] for modality, code in codes.items()} == {
        "image": "undecodable",
        "text": "empty",
        "audio": "undecodable",
    }
    assert not any(value.any() for value in row.values())
    assert len(caplog.records) == 5
    assert "the image of 'r' is left out: /nowhere/a.png can't be read" in caplog.text
    assert "further ones are not named" in caplog.records[-1].message


def test_a_file_that_cannot_be_used_is_named_with_its_format(chains, caplog, tmp_path):
    files = {"image": tmp_path / "cat.heic", "audio": tmp_path / "meow.m4a"}
    files["image"].write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    files["audio"].write_bytes(b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42")
    fresh = Chains({modality: TRANSFORMS[modality] for modality in files})
    with caplog.at_level(logging.WARNING):
        row = fresh.row({"id": "r", **{m: File(str(path)) for m, path in files.items()}}, evaluation)
    assert [KINDS[int(row[f"{m}_bad"]) - 1] for m in files] == ["undecodable", "undecodable"]
    assert f"the image of 'r' is left out: {files['image']}: the picture can't be decoded: it is HEIC" in caplog.text
    assert f"{files['audio']}: the sound can't be decoded: it is AAC or ALAC in MP4 (m4a)" in caplog.text
    assert "ffmpeg -i IN OUT.flac" in caplog.text


def test_beginning_a_record_changes_nothing_but_the_time(chains):
    begun = chains.begin(RECORD)
    assert isinstance(begun["image"], np.ndarray)  # decoded and resized, before the first random transform
    assert begun["audio"] == RECORD["audio"]

    def rng(modality):
        return np.random.default_rng(len(modality))

    for name, value in chains.row(RECORD, rng).items():
        np.testing.assert_array_equal(value, chains.row(begun, rng, begun=True)[name])


def test_what_is_bad_stays_so_when_a_record_was_begun(chains):
    begun = chains.begin({**RECORD, "image": b"broken"})
    assert (
        chains.row(begun, lambda modality: np.random.default_rng(0), begun=True)["image_bad"]
        == KINDS.index("undecodable") + 1
    )


def test_a_transform_that_lies_about_its_shape_is_a_programming_error():
    class Liar(Transform):
        def __call__(self, value, rng):
            return np.zeros((3, 3), np.float32)

    with pytest.raises(UserError, match=r"'image' ended in float32\[3, 3\], and says that it ends in uint8\[8, 8, 3\]"):
        Chains({"image": (Decode(), Resize(8), Liar())}).row(RECORD, evaluation)


def test_encode_makes_a_batch_of_what_is_at_hand(chains):
    batch = chains.encode(image=[picture_bytes((5, 5, 5)), None], text=["red cat", "blue"])
    names = {"image", "image_valid", "image_bad", "text", "text_mask", "text_valid", "text_bad", "index", "id"}
    assert set(batch) == names
    assert batch["image_valid"].tolist() == [True, False]
    assert batch["image"][0, 0, 0].tolist() == [5, 5, 5]
    assert batch["index"].tolist() == [0, 1]
    with pytest.raises(UserError, match="no chain for video, but for image, text, audio"):
        chains.encode(video=[1])
    with pytest.raises(UserError, match=r"lists of one length, not of \[1, 2\]"):
        chains.encode(text=["a"], image=[None, None])


def test_captions_reach_the_tokenizer_as_in_training():
    record = {"text": {"en": "Red Cat", "de": "", "fr": "CHAT"}}
    assert captions(record, "text", TRANSFORMS["text"]) == ["red cat", "chat"]
    assert captions({}, "text", TRANSFORMS["text"]) == []


def test_a_tokenizer_must_have_its_model_and_fit():
    with pytest.raises(UserError, match="chain of 'text' has no model"):
        Chains(TRANSFORMS)
    small = Tokenize(SentencePiece(6), 4)
    with pytest.raises(UserError, match="vocab_size=6"):
        Chains({"text": (small,)}, {"text": PieceTokenizer(WORDS.train(["red cat", "blue dog"]))})


def test_ids_depend_on_source_and_record_alone():
    first, again, other = identity(3, "a", "x"), identity(4, "a", "x"), identity(3, "b", "x")
    assert first["id"].dtype == first["index"].dtype == np.uint32
    assert first["id"].tolist() == again["id"].tolist() == [3272373509, 626735959]  # the same on every machine
    assert first["id"].tolist() != other["id"].tolist()
    assert (first["index"], again["index"]) == (3, 4)


def test_flip_keeps_the_spec_of_what_comes_before():
    assert chain_specs({"image": (Decode(), Resize(8), RandomFlip())})["image"].shape == (8, 8, 3)


def test_prompts_go_through_the_chain_of_texts_whatever_it_is_called(chains):
    model = {"text": chains.tokenizers["text"]}
    assert chains.texts == "text"
    assert Chains({"caption": TRANSFORMS["text"]}, {"caption": model["text"]}).texts == "caption"
    assert Chains({"image": TRANSFORMS["image"]}).texts is None


def test_a_step_that_varies_ends_no_chain_though_it_says_its_rate():
    with pytest.raises(ValueError, match=r"chain of 'music' ends in DecodeAudio, whose result has no fixed shape"):
        chain_specs({"music": (DecodeAudio(8_000),)})
    assert chain_specs({"music": (DecodeAudio(8_000), CropOrPad(10))})["music"].rate == 8_000
