"""GIT: the same logits, loss, gradients and captions, there and back; the published size by shape."""

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import mmjax  # noqa: E402
from mmjax.errors import UserError  # noqa: E402
from mmjax.interop import bundle as bundles  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from mmjax.interop.hf import usage  # noqa: E402
from tests.interop import captioners  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402
from tests.interop import language_models as models  # noqa: E402

SIZE = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
IDS, MASK = models.IDS.astype(np.int32), models.MASK
SIDE, BEFORE = 8, 5  # a CLS and four patches
PROMPTS = [[101, 17, 3], [101], [101, 7, 23, 90, 15]]


def config(**changes):
    seen = SIZE | {"hidden_size": 16, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 4}
    sizes = SIZE | {"vocab_size": 120, "max_position_embeddings": 32}
    return transformers.GitConfig(vision_config=seen, **sizes | changes)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Theirs, as ours, ours as theirs again, and the folder."""
    folder = tmp_path_factory.mktemp("git")
    theirs = twins.random_model(transformers.GitForCausalLM, config())
    return theirs, *twins.there_and_back(theirs, folder), folder


def given(pixels):
    mask = torch.tensor(MASK.astype(np.int64))
    return {"input_ids": torch.tensor(IDS).long(), "attention_mask": mask, "pixel_values": pixels}


def test_logits_loss_and_gradients(read):
    theirs, bundle, again, folder = read
    pictures, pixels = twins.pixels(bundle, SIDE)
    labels = torch.tensor(np.where(MASK, IDS, -100)).long()
    out = theirs(**given(pixels), labels=labels)
    wanted = out.logits[:, BEFORE:].detach().numpy()
    twins.close(np.asarray(captioners.logits(bundle, pictures, IDS, MASK))[MASK], wanted[MASK])
    twins.close(again(**given(pixels)).logits.detach(), out.logits)
    other = theirs(**given(pixels.flip(0))).logits[:, BEFORE:].detach().numpy()
    assert np.abs(wanted - other)[MASK].max() > 0.1  # the picture matters
    loss, gradients = twins.loss_and_gradients(bundle, captioners.batch(pictures, IDS, MASK))
    twins.close(loss, out.loss)
    theirs.zero_grad()
    out.loss.backward()
    twins.same_gradients(bundle, gradients, theirs, folder)


def test_greedy_captions(read):
    """20 words after each of three beginnings; theirs one picture at a time."""
    theirs, bundle, _, _ = read
    pictures, pixels = twins.pixels(bundle, SIDE)
    found = captioners.greedy(bundle, pictures, PROMPTS, 20)
    for row, prompt in enumerate(PROMPTS):
        ids = torch.tensor([prompt])
        made = theirs.generate(pixel_values=pixels[row : row + 1], input_ids=ids, do_sample=False, max_new_tokens=20,
                               attention_mask=torch.ones_like(ids), eos_token_id=None, pad_token_id=0)  # fmt: skip
        np.testing.assert_array_equal(found[row], made[0, len(prompt) :])
    assert len(np.unique(found)) >= 5


def test_choices_of_theirs(tmp_path):
    change = {"tie_word_embeddings": True, "hidden_act": "gelu_new", "layer_norm_eps": 1e-2, "num_hidden_layers": 1}
    theirs = twins.random_model(transformers.GitForCausalLM, config(**change))
    bundle, again = twins.there_and_back(theirs, tmp_path)
    pictures, pixels = twins.pixels(bundle, SIDE)
    wanted = theirs(**given(pixels)).logits
    found = np.asarray(captioners.logits(bundle, pictures, IDS, MASK))
    twins.close(found[MASK], wanted[:, BEFORE:].detach().numpy()[MASK])
    twins.close(again(**given(pixels)).logits.detach(), wanted)


def test_the_published_size():
    """In closed form: CLIP's tower, the map of its tokens, six layers, a table for what is read and one for what is
    written."""
    width, side, patch, vocab = 768, 224, 16, 30_522
    layer, norm = 12 * width**2 + 13 * width, 2 * width
    image = 3 * patch**2 * width + width + (1 + (side // patch) ** 2) * width + 2 * norm + 12 * layer
    text = width**2 + width + norm + (vocab + 1_024) * width + norm + 6 * layer + vocab * width + vocab
    found = twins.fits_by_shape(transformers.GitForCausalLM, transformers.GitConfig())
    assert found == image + text == 176_619_066


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_image_with_embedding", 6, "num_image_with_embedding=6 can't be expressed here, where it is None"),
        ("hidden_act", "relu", "hidden_act='relu' isn't here"),
        ("vision_config.attention_dropout", 0.1, "vision_config: attention_dropout=0.1 can't be expressed here"),
        ("tie_word_embeddings", "no", "tie_word_embeddings='no' must be true or false"),
    ],
)
def test_what_cannot_be_expressed_is_named(key, value, message, read, tmp_path):
    read[0].save_pretrained(tmp_path / "it")
    twins.edited(tmp_path / "it", {key: value})
    with pytest.raises(UserError, match=message):
        hf_layout.read(tmp_path / "it")


def test_a_folder_writes_captions_and_the_code_of_the_card_runs(read, tmp_path, monkeypatch, capsys):
    _, bundle, _, folder = read
    kept = mmjax.load(bundles.save(bundle, tmp_path / "kept"))
    assert kept.experiment.objectives["caption"].reads == ("image",)
    code = re.search(r"```python\n(.*?)```", usage.how_to_load(folder / "ours", hf_layout.near(bundle)), re.DOTALL)
    assert code is not None
    monkeypatch.chdir(folder)
    exec(code[1], {})
    assert "tensor([[" in capsys.readouterr().out
