"""Llama: the same logits, loss, gradients and continuations, there and back; the published size by shape."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mmjax.errors import UserError  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402
from tests.interop import language_models as models  # noqa: E402

SIZES = {
    "vocab_size": 120, "max_position_embeddings": 32, "hidden_size": 24, "intermediate_size": 40,
    "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
}  # fmt: skip
PROMPTS = [[5, 17, 3, 88, 41], [61, 4], [7, 7, 23, 90, 15, 66, 31, 12]]


def theirs(**changes):
    return twins.random_model(transformers.LlamaForCausalLM, transformers.LlamaConfig(**SIZES | changes))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"num_key_value_heads": 6, "rms_norm_eps": 1e-2},
        {"num_key_value_heads": 1, "tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh"},
        {"rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}},
    ],
)
def test_logits_loss_and_gradients(change, tmp_path):
    model = theirs(**change)
    bundle, again = twins.there_and_back(model, tmp_path)
    labels = torch.tensor(np.where(models.MASK, models.IDS, -100))
    mask = torch.tensor(models.MASK.astype(np.int64))
    out = model(input_ids=torch.tensor(models.IDS), attention_mask=mask, labels=labels)
    twins.close(np.asarray(models.logits(bundle))[models.MASK], out.logits.detach().numpy()[models.MASK])
    twins.close(again(torch.tensor(models.IDS)).logits.detach(), model(torch.tensor(models.IDS)).logits)
    loss, gradients = twins.loss_and_gradients(bundle, models.BATCH)
    twins.close(loss, out.loss)
    out.loss.backward()
    twins.same_gradients(bundle, gradients, model, tmp_path)


def test_greedy_continuations(tmp_path):
    model = theirs()
    model.save_pretrained(tmp_path / "it")
    found = models.greedy(hf_layout.read(tmp_path / "it"), PROMPTS, 20)
    for prompt, words in zip(PROMPTS, found, strict=True):
        given = torch.tensor([prompt])
        made = model.generate(given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=20,
                              eos_token_id=None, pad_token_id=0)  # fmt: skip
        np.testing.assert_array_equal(words, made[0, len(prompt) :])
    assert len(np.unique(found)) >= 5


def test_the_published_size():
    """As the papers' notes count the 7B: two tables of 32,000, 32 layers without biases, norms of a scale alone."""
    width, hidden, depth = 4_096, 11_008, 32
    layer = 4 * width**2 + 3 * width * hidden + 2 * width
    found = twins.fits_by_shape(transformers.LlamaForCausalLM, transformers.LlamaConfig())
    assert found == 2 * 32_000 * width + depth * layer + width == 6_738_415_616


def test_older_files_say_their_positions_otherwise(tmp_path):
    theirs(rope_parameters={"rope_theta": 500.0, "rope_type": "default"}).save_pretrained(tmp_path / "it")
    wanted = models.logits(hf_layout.read(tmp_path / "it"))
    twins.edited(tmp_path / "it", {"rope_parameters": None, "rope_theta": 500.0, "rope_scaling": None})
    np.testing.assert_array_equal(models.logits(hf_layout.read(tmp_path / "it")), wanted)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("attention_bias", True, "attention_bias=True can't be expressed here, where it is False"),
        ("head_dim", 8, "head_dim=8 can't be expressed here, where it is hidden_size / num_attention_heads, 24 / 6"),
        ("num_key_value_heads", 0, "num_key_value_heads=0 must be a whole number"),
        ("num_key_value_heads", 4, "kv_heads=4 does not divide heads=6"),
        ("rope_parameters", {"rope_type": "linear", "factor": 2.0}, r"rope_type='linear' \(factor\) can't be expr"),
        ("rope_parameters", {"rope_theta": 0}, "rope_theta=0 must be a number above 0"),
        ("rope_parameters", "far", "rope_parameters='far' is no dict"),
    ],
)
def test_what_cannot_be_expressed_is_named(key, value, message, tmp_path):
    theirs().save_pretrained(tmp_path / "it")
    twins.edited(tmp_path / "it", {key: value})
    with pytest.raises(UserError, match=message):
        hf_layout.read(tmp_path / "it")
