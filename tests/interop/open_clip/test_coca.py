"""open_clip's CoCa: the same embeddings, logits, losses, gradients and words, there and back."""

import copy
import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

from open_clip.loss import CoCaLoss  # noqa: E402

from mmjax.errors import UserError  # noqa: E402
from mmjax.evaluate.writing.writer import Writer  # noqa: E402
from mmjax.experiment.graph import build  # noqa: E402
from mmjax.interop.open_clip import config as open_clip_config  # noqa: E402
from mmjax.interop.open_clip import layout as open_clip_layout  # noqa: E402
from mmjax.objectives.written import decoder_to_write  # noqa: E402
from tests.interop import openclip_twins as twins  # noqa: E402

BASE: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 8, "patch_size": 4, "width": 36, "head_width": 12, "layers": 2, "output_tokens": True,
                   "attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 3},
    "text_cfg": {"context_length": 7, "vocab_size": 99, "width": 24, "heads": 3, "layers": 2, "embed_cls": True,
                 "output_tokens": True},
    "multimodal_cfg": {"context_length": 7, "vocab_size": 99, "width": 24, "heads": 3, "layers": 2,
                       "attn_pooler_heads": 3},
    "custom_text": True,
}  # fmt: skip
# Matrices that torch joins; a tower without the pooler, as coca_base.
JOINED = {"vision_cfg": {"width": 24, "head_width": 12}, "quick_gelu": True}
PLAIN = {"vision_cfg": {"attentional_pool": False, "width": 24, "head_width": 12}}
CHANGES: dict[str, Any] = {"released": {}, "joined": JOINED, "plain": PLAIN}
PARAMETERS = {"coca_ViT-B-32": 253_560_065, "coca_ViT-L-14": 638_450_177}


def config_of(changes: dict[str, Any]) -> dict[str, Any]:
    config = copy.deepcopy(BASE)
    for key, value in changes.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    return config


@pytest.fixture(scope="module", params=CHANGES)
def case(request, tmp_path_factory):
    config = config_of(CHANGES[request.param])
    model = twins.random_model(config)
    folder = twins.save(model, config, tmp_path_factory.mktemp("open_clip") / request.param)
    return open_clip_layout.read(folder), model


def ours(bundle, batch):
    """Embeddings, logits of the next words, both losses, and the gradient of their weighted sum."""
    module, variables = build(bundle.config).pretrainer().clone(weights={"caption": 2.0}), bundle.variables

    def loss(params):
        (value, metrics), seen = module.apply(
            {"params": params}, batch, train=False, mutable=["intermediates"],
            capture_intermediates=lambda _, method: method in ("pool", "logits"),
        )  # fmt: skip
        return value, (metrics, seen["intermediates"])

    with jax.default_matmul_precision("highest"):
        (_, (metrics, seen)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    embeddings = {name: seen[f"towers_{name}"]["pool"][0] for name in ("image", "text")}
    return embeddings, seen["objectives_caption"]["decoder"]["logits"][0], metrics, twins.tables.flat(gradient)


def test_embeddings_logits_losses_and_gradients(case):
    bundle, model = case
    batch, pixels = twins.batch_of(bundle)
    embeddings, logits, metrics, gradient = ours(bundle, batch)
    out = model(pixels, torch.tensor(twins.IDS))
    twins.close(embeddings["image"], model.encode_image(pixels, normalize=False))
    twins.close(embeddings["text"], model.encode_text(torch.tensor(twins.IDS), normalize=False))
    read = twins.MASK[:, :-1]
    twins.close(np.asarray(logits)[read], out["logits"].detach().numpy()[read])
    contrastive, words = CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=1.0, pad_id=0)(
        out["image_features"], out["text_features"], out["logits"], out["labels"], out["logit_scale"]
    )
    twins.close(metrics["contrastive/loss"], contrastive)
    twins.close(2 * metrics["caption/loss"], words)
    model.zero_grad()
    (contrastive + words).backward()
    theirs = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    twins.same_gradients(bundle, gradient, theirs)


@pytest.mark.parametrize("case", ["released"], indirect=True)
def test_greedy_words(case):
    """After prompts of different lengths, against the likeliest word of their whole forward pass, one by one."""
    bundle, model = case
    batch, pixels = twins.batch_of(bundle)
    prompts, count = [[97], [97, 5, 8], [97, 1]], 4
    module, caption = build(bundle.config).pretrainer(), build(bundle.config.objectives["caption"])
    views = jax.jit(lambda v: module.apply(v, {"image": batch["image"], "image_valid": batch["image_valid"]},
                                           "caption", method="views_to_write"))(bundle.variables)  # fmt: skip
    writer = Writer(*decoder_to_write(caption, "caption", module.towers, bundle.variables["params"]))
    with jax.set_mesh(writer.mesh), jax.default_matmul_precision("highest"):
        texts, _, task = writer.begin(writer.read(prompts, views, most=count))
        words = np.asarray(writer.advance(writer.params, texts, task, count)[0].ids)[:3, :count]
    for row, prompt in enumerate(prompts):
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(count):
                out = model(pixels[row : row + 1], torch.tensor([ids]), output_labels=False)
                ids.append(int(out["logits"][0, -1].argmax()))
        np.testing.assert_array_equal(words[row], ids[len(prompt) :])
    assert len(np.unique(words)) > 2


def test_open_clip_opens_what_is_written_with_the_same_bits(case, tmp_path):
    bundle, model = case
    folder = open_clip_layout.write(bundle, tmp_path / "out")
    again, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    assert type(again) is open_clip.CoCa
    first, second = twins.state(model), twins.state(again)
    assert first.keys() == second.keys()
    for name, array in first.items():
        torch.testing.assert_close(second[name], array, rtol=0, atol=0)
    _, pixels = twins.batch_of(bundle)
    theirs, back = (one.eval()(pixels, torch.tensor(twins.IDS)) for one in (model, again))
    for name, value in theirs.items():
        torch.testing.assert_close(back[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_sizes(name):
    config = open_clip.get_model_config(name)
    assert twins.fits_by_shape(config) == PARAMETERS[name]


def refused(message: str, **changes: Any) -> Any:
    return pytest.param(changes, message, id=message[:30])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        refused("attentional_pool='cascade'", vision_cfg={"attentional_pool": "cascade"}),
        refused("embed_cls=False and pad_id=0", text_cfg={"embed_cls": False}),
        refused("embed_cls=True and pad_id=1", text_cfg={"pad_id": 1}),
        refused("correct_cls_mask=True isn't known", text_cfg={"correct_cls_mask": True}),
        refused("'width': 36, .* where both are alike", multimodal_cfg={"width": 36}),
        refused("'mlp_ratio': 2.0, .* where both are alike", text_cfg={"mlp_ratio": 2}),
        refused("ls_init_value=0.1 can't be expressed", multimodal_cfg={"ls_init_value": 0.1}),
    ],
)
def test_what_cannot_be_expressed_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        open_clip_config.model_parts(config_of(changes))


def test_a_text_whose_cls_sees_itself_is_refused(case, tmp_path):
    """open_clip's can't: what was trained so would give other embeddings there."""
    bundle, _ = case
    config = copy.deepcopy(bundle.config)
    config.towers["text"].cls_shifted = False
    with pytest.raises(UserError, match=r"text\.cls_shifted: True there, False here"):
        open_clip_layout.write(dataclasses.replace(bundle, config=config), tmp_path / "out")
