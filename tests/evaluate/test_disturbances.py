"""Noise in pictures and sounds and wrong words in texts, as stated, and the same however a split is cut."""

from typing import Any

import numpy as np
import pytest

from mmjax.data.chains import Chains
from mmjax.data.kinds import USUAL
from mmjax.data.tokenizers.subwords import Subwords
from mmjax.data.transforms.audio import CropOrPad, DecodeAudio
from mmjax.data.transforms.image import Decode, Resize
from mmjax.errors import UserError
from mmjax.evaluate.disturbances import disturbance_name, disturbed_rows
from mmjax.inference.model import Model

B, SIDE, SAMPLES = 8, 24, 4_000


@pytest.fixture(scope="module")
def chains() -> Chains:
    return Chains({"image": (Decode(), Resize(SIDE)), "audio": (DecodeAudio(), CropOrPad(SAMPLES))})


def batch() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    wave = (3_000 * random.standard_normal((B, SAMPLES))).clip(-(2**15), 2**15 - 1).astype(np.int16)
    real = np.arange(SAMPLES) < random.integers(1_000, SAMPLES, B)[:, None]
    return {
        "image": random.integers(100, 156, (B, SIDE, SIDE, 3), np.uint8),
        "audio": np.where(real, wave, 0).astype(np.int16),
        "audio_mask": real,
        "image_valid": np.arange(B) != 2,
        "audio_valid": np.arange(B) != 3,
        "id": random.integers(0, 2**32, (B, 2), np.uint32),
    }


def test_a_picture_has_noise_of_the_stated_deviation(chains: Chains) -> None:
    given = batch()
    small, large = (disturbed_rows(given, ("image", amount), chains)["image"] for amount in (0.05, 0.1))
    noise = small.astype(np.float64) - given["image"]
    valid = given["image_valid"]
    np.testing.assert_allclose(noise[valid].std(), 0.05 * 255, rtol=0.03)
    np.testing.assert_allclose(noise[valid].mean(), 0, atol=0.5)
    np.testing.assert_array_equal(small[~valid], given["image"][~valid])
    twice = large.astype(np.float64) - given["image"]
    within = (large > 0) & (large < 255) & valid[:, None, None, None]
    assert np.abs(twice - 2 * noise)[within].max() <= 1.5  # the same noise, twice as strong, each rounded
    assert within.mean() > 0.8
    each = [noise[row].reshape(-1) for row in np.flatnonzero(valid)]
    assert max(abs(np.corrcoef(each)[i, j]) for i in range(len(each)) for j in range(i)) < 0.15
    np.testing.assert_array_equal(disturbed_rows(given, ("image", 0.0), chains)["image"], given["image"])


@pytest.mark.parametrize("snr", [20.0, 0.0])
def test_a_sound_has_noise_at_the_stated_ratio(chains: Chains, snr: float) -> None:
    given = batch()
    found = disturbed_rows(given, ("audio", snr), chains)["audio"]
    for row in np.flatnonzero(given["audio_valid"]):
        real = given["audio_mask"][row]
        clean, noisy = (x[row].astype(np.float64) for x in (given["audio"], found))
        assert not noisy[~real].any()
        power, noise = np.mean(clean[real] ** 2), np.mean((noisy - clean)[real] ** 2)
        assert abs(10 * np.log10(power / noise) - snr) < 0.5
    np.testing.assert_array_equal(found[3], given["audio"][3])  # it lacks its sound
    silent = given | {"audio": np.zeros_like(given["audio"])}
    assert not disturbed_rows(silent, ("audio", snr), chains)["audio"].any()


@pytest.mark.parametrize("disturb", [("image", 0.1), ("audio", 5.0)])
def test_noise_is_the_example_s_own_however_the_split_is_cut(chains: Chains, disturb: tuple[str, float]) -> None:
    given, name = batch(), disturb[0]
    whole = disturbed_rows(given, disturb, chains)[name]
    order = np.random.default_rng(1).permutation(B)
    for some in (order[:3], order[3:]):
        part = disturbed_rows({entry: array[some] for entry, array in given.items()}, disturb, chains)
        np.testing.assert_array_equal(part[name], whole[some])


def test_of_a_text_the_stated_share_of_words_is_another(reading: Model) -> None:
    chains = reading._chains
    tokenizer: Any = chains.tokenizers["text"]
    length = 400
    special = [tokenizer.pad, tokenizer.bos, tokenizer.eos]
    words = np.setdiff1d(np.arange(tokenizer.vocab_size), special)
    random = np.random.default_rng(0)
    ids = random.choice(words, (B, length)).astype(np.int32)
    ids[:, 350], ids[:, 360:] = special[2], special[0]
    given = {"text": ids, "text_mask": np.arange(length) < 360 + np.zeros((B, 1), int)}
    given |= {"text_valid": np.ones(B, bool), "id": random.integers(0, 2**32, (B, 2), np.uint32)}
    some, more, all_ = (disturbed_rows(given, ("text", share), chains)["text"] for share in (0.2, 0.5, 1.0))
    for found, share in ((some, 0.2), (more, 0.5)):
        assert abs((found != ids)[:, :350].mean() - share) < 0.03
    assert (more == all_)[some != ids].all()  # what is replaced at a smaller share is at a larger one, by the same
    assert (all_ != ids)[:, :350].all()
    np.testing.assert_array_equal(all_[:, 350], ids[:, 350])
    np.testing.assert_array_equal(all_[:, 360:], ids[:, 360:])
    drawn = np.bincount(all_[:, :350].reshape(-1), minlength=tokenizer.vocab_size)
    assert not drawn[special].any()
    assert (drawn[words] > 0).all()


@pytest.mark.parametrize(
    ("disturb", "message"),
    [
        (("image", -0.1), r"std=-0.1 must be at least 0"),
        (("image", float("nan")), r"std=nan must be at least 0"),
        (("audio", float("inf")), r"snr=inf must be a finite number"),
    ],
)
def test_amounts_beyond_their_range_are_refused(chains: Chains, disturb: tuple[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        disturbed_rows(batch(), disturb, chains)


def test_what_cannot_be_disturbed_is_refused(chains: Chains) -> None:
    given = batch()
    with pytest.raises(UserError, match="uint8, and this model reads them as float32"):
        disturbed_rows(given | {"image": given["image"].astype(np.float32)}, ("image", 0.1), chains)
    kinds: Any = dict(USUAL)
    assert disturbance_name(("audio", 10), kinds, "Accuracy") == "disturbed audio snr=10"
    with pytest.raises(UserError, match=r"Accuracy\(disturb=...\) has 'imge', but .* did you mean image"):
        disturbance_name(("imge", 0.1), kinds, "Accuracy")
    text, none = USUAL["text"], np.random.default_rng(0)
    with pytest.raises(UserError, match="share of tokens that are replaced=2 must be from 0 to 1"):
        text.disturbed(np.zeros(3, np.int32), None, 2, none, ())
    with pytest.raises(UserError, match="other tokens of their tokenizer, and this model has none"):
        text.disturbed(np.zeros(3, np.int32), None, 0.5, none, (Subwords,)[:0])
