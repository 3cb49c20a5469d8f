from mmjax.data.tokenizers.sentence_piece import SentencePiece
from mmjax.data.transforms.audio import CropOrPad, DecodeAudio, PickUtterance
from mmjax.data.transforms.contract import RecordTransform
from mmjax.data.transforms.image import Decode, Resize
from mmjax.data.transforms.record import CopyInput
from mmjax.data.transforms.text import Tokenize
from mmjax.train.plan.input_cost import CAPTION, reading

IMAGE = (Decode(), Resize(64))
TEXT = (Tokenize(SentencePiece(100, name="x"), 8),)
AUDIO = (PickUtterance(), DecodeAudio(16_000), CropOrPad(16_000))


def test_a_chain_that_does_more_takes_longer():
    one = reading({"image": IMAGE, "text": TEXT})
    assert 1e-4 < one.seconds < 1
    assert one.of == "a JPEG of 512x512"
    both = reading({"image": IMAGE, "audio": AUDIO})
    assert both.seconds > 1.2 * one.seconds
    assert both.bytes > one.bytes > 50_000
    assert "and a FLAC of 10 s" in both.of


def test_captions_cost_no_decoding():
    assert reading({"text": TEXT}).seconds == 0
    assert reading({"text": TEXT}).bytes == CAPTION
    copied = reading({"text": TEXT, "caption_2": TEXT}, (CopyInput("text", "caption_2"),))
    assert (copied.seconds, copied.of) == (0, "captions alone")


def test_what_is_done_to_whole_records_counts_or_is_said_not_to():
    class Boxes(RecordTransform):
        def __call__(self, record, rng):
            return {**record, "image": record["boxes"]}

    twice = reading({"image": IMAGE, "image_2": IMAGE}, (CopyInput("image", "image_2"),))
    without = reading({"image": IMAGE}, (Boxes(),))
    assert without.of == "a JPEG of 512x512, without the record transforms"
    assert twice.of == "a JPEG of 512x512"
    assert twice.seconds > 1.4 * without.seconds
