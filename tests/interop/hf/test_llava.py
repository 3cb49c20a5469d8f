"""LLaVA-1.5's layout: the same logits, gradients and continuations, there and back; the published size by shape."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import jax  # noqa: E402

from mmjax.errors import UserError  # noqa: E402
from mmjax.experiment.graph import build  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402
from tests.interop import language_models as models  # noqa: E402

VISION = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 8, "hidden_act": "quick_gelu",
}  # fmt: skip
TEXT = {
    "vocab_size": 120, "max_position_embeddings": 64, "hidden_size": 24, "intermediate_size": 40,
    "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 6, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
PLACE = 119
# A picture first, one in the middle behind more words, and none.
IDS = np.array([
    [1, PLACE, PLACE, PLACE, PLACE, 9, 4, 6, 2, 0, 0],
    [1, 17, 3, 88, PLACE, PLACE, PLACE, PLACE, 15, 66, 31],
    [1, 61, 4, 23, 7, 0, 0, 0, 0, 0, 0],
])  # fmt: skip
MASK = IDS > 0
SLOTS = np.where(IDS == PLACE, np.cumsum(IDS == PLACE, axis=1) - 1, -1).astype(np.int32)


def theirs(**changes):
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION),
        text_config=transformers.LlamaConfig(**TEXT),
        **{"image_token_id": PLACE, **changes},
    )
    return twins.random_model(transformers.LlavaForConditionalGeneration, config)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("llava"), theirs()
    model.save_pretrained(folder / "theirs")
    bundle = hf_layout.read(folder / "theirs")
    hf_layout.write(bundle, folder / "ours")
    return model, bundle, folder


def their_logits(model, pixels):
    """Of rows with a picture, and of those without."""
    given = {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(MASK.astype(np.int64))}
    return model(**given, pixel_values=pixels[:2]).logits


def test_logits_gradients_and_what_is_written(both):
    model, bundle, folder = both
    image, pixels = twins.pixels(bundle, 16)
    cut = build(bundle.config.data.transforms["text"][-1])
    assert (cut.slots, cut.placeholder, cut.template) == ({"image": 4}, PLACE, "vicuna_v1")
    wanted = their_logits(model, pixels)
    tower = twins.tower_of(bundle, "image")
    decoder, variables = models.decoder_of(bundle).unbind()

    with jax.default_matmul_precision("highest"):
        tokens, _ = tower.tokens(image)
        found = jax.jit(lambda v, t: decoder.apply(v, t, method=lambda d, t: d.logits(
            d(IDS, MASK, {"image": (t, np.ones(t.shape[:2], bool))}, inserts=SLOTS))))(variables, tokens)  # fmt: skip
    twins.close(np.asarray(found)[MASK], wanted.detach().numpy()[MASK])
    again, report = type(model).from_pretrained(folder / "ours", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    assert (again.config.vision_config.num_hidden_layers, again.config.vision_feature_layer) == (2, -1)
    twins.close(their_logits(again.eval(), pixels).detach(), wanted)
    back = hf_layout.read(folder / "ours")
    jax.tree.map(np.testing.assert_array_equal, back.variables, bundle.variables)

    labels = torch.tensor(np.where(MASK & (IDS != PLACE), IDS, -100))
    given = {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(MASK.astype(np.int64))}
    loss = model(**given, pixel_values=pixels[:2], labels=labels).loss
    batch = {
        "image": image, "image_valid": np.array([True, True, False]), "text": IDS.astype(np.int32), "text_mask": MASK,
        "text_slots": SLOTS, "text_valid": np.ones(3, bool), "index": np.arange(3),
    }  # fmt: skip
    value, gradients = twins.loss_and_gradients(bundle, batch)
    twins.close(value, loss)
    loss.backward()
    for name, ours in (("linear_1", "in"), ("linear_2", "out")):
        kernel = getattr(model.model.multi_modal_projector, name).weight.grad.numpy().T
        twins.close(gradients[f"objectives_words/decoder/inserted_image/{ours}/kernel"], kernel)
    stem = model.model.vision_tower.embeddings.class_embedding.grad.numpy()
    twins.close(gradients["towers_image/cls"], stem, np.abs(stem).max())


def test_greedy_continuations(both):
    model, bundle, _ = both
    image, pixels = twins.pixels(bundle, 16)
    tower, (decoder, variables), count = twins.tower_of(bundle, "image"), models.decoder_of(bundle).unbind(), 12
    prefill = jax.jit(lambda v, *x: decoder.apply(v, *x, slots=32, method="prefill"))
    extend = jax.jit(lambda v, *x: decoder.apply(v, *x, method="extend"))
    likeliest = jax.jit(lambda v, x: decoder.apply(v, x, method="logits").argmax(axis=-1))
    with jax.default_matmul_precision("highest"):
        views = {"image": tower.tokens(image[:2])}
        states, cache = prefill(variables, IDS[:2], MASK[:2], views, None, SLOTS[:2])
        words = [likeliest(variables, states[np.arange(2), MASK[:2].sum(axis=1) - 1])]
        for _ in range(count - 1):
            states, cache = extend(variables, words[-1][:, None], cache)
            words.append(likeliest(variables, states[:, 0]))
    found = np.stack(words, axis=1)
    for row in range(2):
        length = int(MASK[row].sum())
        made = model.generate(
            input_ids=torch.tensor(IDS[row : row + 1, :length]), pixel_values=pixels[row : row + 1], do_sample=False,
            max_new_tokens=count, attention_mask=torch.ones((1, length), dtype=torch.long), eos_token_id=None,
            pad_token_id=0,
        )  # fmt: skip
        np.testing.assert_array_equal(found[row], made[0, length:])
    assert len(np.unique(found)) >= 4


def test_the_published_size():
    """LLaVA-1.5 7B: the tower without its last block, 20,979,712 of the projector, 6,738,415,616 of the decoder."""
    vision = transformers.CLIPVisionConfig(
        hidden_size=1_024, intermediate_size=4_096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
        patch_size=14,
    )  # fmt: skip
    config = transformers.LlavaConfig(vision_config=vision, text_config=transformers.LlamaConfig())
    tower = 1_024 * (3 * 14**2 + 577 + 1 + 4) + 23 * (12 * 1_024**2 + 13 * 1_024)
    found = twins.fits_by_shape(transformers.LlavaForConditionalGeneration, config)
    assert found == tower + 20_979_712 + 6_738_415_616


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "vision_feature_layer",
            [-2, -1],
            r"vision_feature_layer=\[-2, -1\] is none of the 3 blocks",
        ),
        ("vision_feature_layer", -5, "vision_feature_layer=-5 is none of the 3 blocks' outputs"),
        (
            "vision_feature_select_strategy",
            "some",
            "vision_feature_select_strategy='some' isn't here; default, full are",
        ),
        ("text_config.model_type", "mistral", "text_config.model_type='mistral' can't be expressed here"),
        ("multimodal_projector_bias", False, "multimodal_projector_bias=False can't be expressed here"),
    ],
)
def test_what_cannot_be_expressed_is_named(key, value, message, both, tmp_path):
    both[0].save_pretrained(tmp_path / "it")
    twins.edited(tmp_path / "it", {key: value})
    with pytest.raises(UserError, match=message):
        hf_layout.read(tmp_path / "it")
