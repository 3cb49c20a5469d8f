"""PaliGemma: the same logits, loss, gradients and continuations, there and back; the published size by shape."""

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mmjax.data.transforms.prefixed import TokenizePrefixed  # noqa: E402
from mmjax.errors import UserError  # noqa: E402
from mmjax.experiment.graph import build  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from mmjax.interop.hf import usage  # noqa: E402
from tests.interop import captioners  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402
from tests.interop import language_models as models  # noqa: E402

IDS, MASK, SIDE, BEFORE, HOLD = models.IDS.astype(np.int32), models.MASK, 8, 4, 119
TOGETHER = np.array([3, 1, 4], np.int32)  # words of each prompt
LOSS = MASK & (np.arange(IDS.shape[1]) >= TOGETHER[:, None])
PROMPTS = [[2, 17, 3], [2], [2, 7, 23, 90, 15]]


def config(**changes):
    text = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 1, "head_dim": 8, "vocab_size": 120, "max_position_embeddings": 64}
    seen = {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    seen |= {"image_size": SIDE, "patch_size": 4, "vision_use_head": False, "model_type": "siglip_vision_model"}
    told = {"projection_dim": 24, "hidden_size": 24, "image_token_index": HOLD, "vocab_size": 120}
    return transformers.PaliGemmaConfig(
        text_config=text | {"model_type": "gemma"} | changes, vision_config=seen, **told
    )


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Theirs, as ours, ours as theirs again, and the folder."""
    folder = tmp_path_factory.mktemp("paligemma")
    theirs = twins.random_model(transformers.PaliGemmaForConditionalGeneration, config())
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "language_model" in name and "norm" in name:
                parameter.sub_(1.0)  # which 1 is added to
    return theirs, *twins.there_and_back(theirs, folder), folder


def given(pixels, hold=HOLD):
    """Theirs has the picture's placeholders among the ids, and 0 as the type of what sees each other."""
    ids = np.concatenate([np.full((len(IDS), BEFORE), hold), IDS], axis=1)
    mask = np.concatenate([np.ones((len(IDS), BEFORE), bool), MASK], axis=1)
    kinds = np.arange(ids.shape[1]) >= BEFORE + TOGETHER[:, None]
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
    return {name: torch.tensor(array.astype(np.int64)) for name, array in arrays.items()} | {"pixel_values": pixels}


def test_logits_loss_and_gradients(read):
    theirs, bundle, again, folder = read
    pictures, pixels = twins.pixels(bundle, SIDE)
    out = theirs(**given(pixels)).logits[:, BEFORE:]
    wanted = out.detach().numpy()
    twins.close(np.asarray(captioners.logits(bundle, pictures, IDS, MASK, TOGETHER))[MASK], wanted[MASK])
    twins.close(again(**given(pixels, hold=120)).logits[:, BEFORE:].detach().numpy()[MASK], wanted[MASK])
    other = theirs(**given(pixels.flip(0))).logits[:, BEFORE:].detach().numpy()
    assert np.abs(wanted - other)[MASK].max() > 0.1  # the picture matters
    targets = torch.tensor(np.where(LOSS, IDS, -100)[:, 1:]).long()
    each = torch.nn.functional.cross_entropy(out[:, :-1].transpose(1, 2), targets, reduction="none", ignore_index=-100)
    mean = (each.sum(dim=1) / torch.tensor(LOSS.sum(axis=1))).mean()  # of texts' means, as the paper's
    told = {"text_prefix": TOGETHER, "text_loss": LOSS}
    loss, gradients = twins.loss_and_gradients(bundle, captioners.batch(pictures, IDS, MASK, **told))
    twins.close(loss, mean)
    theirs.zero_grad()
    mean.backward()
    twins.same_gradients(bundle, gradients, theirs, folder)


def test_greedy_continuations(read):
    """20 words after each of three prompts, whose words see each other and the picture; theirs one at a time."""
    theirs, bundle, _, _ = read
    pictures, pixels = twins.pixels(bundle, SIDE)
    together = np.array([len(prompt) for prompt in PROMPTS], np.int32)
    found = captioners.greedy(bundle, pictures, PROMPTS, 20, together)
    for row, prompt in enumerate(PROMPTS):
        ids = torch.tensor([[HOLD] * BEFORE + prompt])
        made = theirs.generate(pixel_values=pixels[row : row + 1], input_ids=ids, do_sample=False, max_new_tokens=20,
                               attention_mask=torch.ones_like(ids), token_type_ids=torch.zeros_like(ids),
                               eos_token_id=None, pad_token_id=0)  # fmt: skip
        np.testing.assert_array_equal(found[row], made[0, ids.shape[1] :])
    assert len(np.unique(found)) >= 4


def test_the_published_size():
    """As the papers' notes count them: So400m/14 without its head, one linear map, and Gemma-2B with 257,152 rows."""
    found = twins.fits_by_shape(transformers.PaliGemmaForConditionalGeneration, published())
    assert found == 412_442_352 + 2_361_344 + 2_508_531_712 == 2_923_335_408


def published():
    seen = {"hidden_size": 1_152, "intermediate_size": 4_304, "num_hidden_layers": 27, "num_attention_heads": 16}
    seen |= {"image_size": 224, "patch_size": 14, "vision_use_head": False, "model_type": "siglip_vision_model"}
    text = {"hidden_size": 2_048, "intermediate_size": 16_384, "num_hidden_layers": 18, "num_attention_heads": 8}
    text |= {"num_key_value_heads": 1, "vocab_size": 257_152, "model_type": "gemma"}
    return transformers.PaliGemmaConfig(text_config=text, vision_config=seen)


def test_older_names_and_what_is_tied_are_read(read):
    """The released files have `vision_model` within the tower."""
    *_, folder = read
    kind = twins.family(folder / "theirs")
    names = {"vision_tower.vision_model.post_layernorm.bias", "language_model.model.norm.weight"}
    assert kind.renamed(dict.fromkeys(names, np.zeros(1))).keys() == {
        "vision_tower.post_layernorm.bias",
        *(names - {max(names)}),
    }
    assert kind.ignored("language_model.lm_head.weight")


def test_texts_have_a_prefix_that_ends_in_a_line_break(read, monkeypatch, capsys):
    _, bundle, _, folder = read
    cut = build(bundle.config.data.transforms["text"][-1])
    assert isinstance(cut, TokenizePrefixed)
    assert (cut.separator, cut.together, cut.bos, cut.eos) == ("\n", True, True, True)
    code = re.search(r"```python\n(.*?)```", usage.how_to_load(folder / "ours", hf_layout.near(bundle)), re.DOTALL)
    assert code is not None
    monkeypatch.chdir(folder)
    exec(code[1], {})
    assert "tensor([[" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("text_config.model_type", "gemma2", "text_config.model_type='gemma2' can't be read; 'gemma' can"),
        ("text_config.attention_bias", True, "text_config: attention_bias=True can't be expressed here"),
        ("text_config.head_dim", 0, "head_dim=0 must be a whole number, at least 1"),
        ("vision_config.vision_use_head", True, "vision_config: vision_use_head=True can't be expressed here"),
        ("tie_word_embeddings", False, "tie_word_embeddings=False can't be expressed here, where it is True"),
    ],
)
def test_what_cannot_be_expressed_is_named(key, value, message, read, tmp_path):
    read[0].save_pretrained(tmp_path / "it")
    twins.edited(tmp_path / "it", {key: value})
    with pytest.raises(UserError, match=message):
        hf_layout.read(tmp_path / "it")
