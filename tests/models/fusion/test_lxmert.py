"""Towers and fusion of LXMERT are Hugging Face's `LxmertModel`: outputs and gradients, with its random weights."""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models import Blocks, CoAttention, Regions, TextTransformer

if not importlib.util.find_spec("transformers") or not importlib.util.find_spec("torch"):
    pytest.skip("needs transformers and torch", allow_module_level=True)

from tests.benchmarks.step_sides import allow_any_torchvision

allow_any_torchvision()

import torch  # noqa: E402
from transformers.models.lxmert.configuration_lxmert import LxmertConfig  # noqa: E402
from transformers.models.lxmert.modeling_lxmert import LxmertModel  # noqa: E402

B, WORDS, N, F, WIDTH, HEADS, VOCAB = 3, 6, 5, 7, 16, 2, 30
LAYERS = {"text": 2, "regions": 1, "cross": 2}
SIZE: dict[str, Any] = {"width": WIDTH, "heads": HEADS, "mlp_dim": 24, "norm": "post", "norm_eps": 1e-12, "remat": None}
BOTH = Blocks(depth=LAYERS["cross"], **SIZE)
TEXT = TextTransformer(
    vocab=VOCAB, length=8, types=2, pre_norm=True, pooling="cls", blocks=Blocks(depth=LAYERS["text"], **SIZE)
)
REGIONS = Regions(features=F, blocks=Blocks(depth=LAYERS["regions"], **SIZE))
FUSION = CoAttention(
    streams={"text": BOTH, "regions": BOTH},
    heads=HEADS,
    shared=True,
    mlp=False,
    pooled="text",
    embed_dim=WIDTH,
    projection_tanh=True,
)
Get = Callable[[str], np.ndarray]


def theirs() -> Any:
    """Their model, no weight of which is zero or one."""
    config = LxmertConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, num_attention_heads=HEADS, intermediate_size=24,
        max_position_embeddings=8, l_layers=LAYERS["text"], r_layers=LAYERS["regions"], x_layers=LAYERS["cross"],
        visual_feat_dim=F, visual_pos_dim=4,
    )  # fmt: skip
    model = LxmertModel(config).eval()
    random = np.random.default_rng(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            offset = 1.0 if "orm.weight" in name else 0.0
            weight.copy_(torch.from_numpy(offset + 0.3 * random.normal(size=tuple(weight.shape))))
    return model


def inputs() -> dict[str, Any]:
    random = np.random.default_rng(1)
    corners = np.sort(random.uniform(size=(B, N, 2, 2)), axis=2).reshape(B, N, 4)
    return {
        "ids": random.integers(0, VOCAB, (B, WORDS)).astype(np.int32),
        "types": random.integers(0, 2, (B, WORDS)).astype(np.int32),
        "words": np.arange(WORDS) < np.array([[6], [4], [2]]),
        "rows": np.concatenate([random.normal(size=(B, N, F)), corners], axis=2).astype(np.float32),
        "boxes": np.arange(N) < np.array([[5], [1], [3]]),
    }


def linear(get: Get, name: str) -> dict[str, np.ndarray]:
    return {"kernel": get(f"{name}.weight").T, "bias": get(f"{name}.bias")}


def norm(get: Get, name: str) -> dict[str, np.ndarray]:
    return {"scale": get(f"{name}.weight"), "bias": get(f"{name}.bias")}


def heads(get: Get, names: list[str]) -> dict[str, np.ndarray]:
    kernels = [get(f"{name}.weight").T.reshape(WIDTH, HEADS, -1) for name in names]
    return {
        "kernel": np.stack(kernels, axis=2),
        "bias": np.stack([get(f"{name}.bias").reshape(HEADS, -1) for name in names], axis=1),
    }


def joined(get: Get, name: str) -> dict[str, np.ndarray]:
    return {"kernel": get(f"{name}.weight").T.reshape(HEADS, -1, WIDTH), "bias": get(f"{name}.bias")}


def block(get: Get, attention: str, own: str, inner: str, outer: str) -> dict[str, Any]:
    return {
        "attention": {
            "qkv": heads(get, [f"{attention}.{own}.{part}" for part in ("query", "key", "value")]),
            "out": joined(get, f"{attention}.output.dense"),
        },
        "norm_attention": norm(get, f"{attention}.output.LayerNorm"),
        "mlp": {"in": linear(get, f"{inner}.dense"), "out": linear(get, f"{outer}.dense")},
        "norm_mlp": norm(get, f"{outer}.LayerNorm"),
    }


def stacked(layers: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *layers)


def mapped(get: Get) -> dict[str, Any]:
    """Their tensors, weights or gradients, as our parameters."""

    def plain(name: str) -> dict[str, Any]:
        return block(get, f"{name}.attention", "self", f"{name}.intermediate", f"{name}.output")

    def crossed(name: str) -> dict[str, Any]:
        met = f"{name}.visual_attention"
        return {
            "cross": {
                "query": heads(get, [f"{met}.att.query"]),
                "key_value": heads(get, [f"{met}.att.key", f"{met}.att.value"]),
                "out": joined(get, f"{met}.output.dense"),
            },
            "norm_cross": norm(get, f"{met}.output.LayerNorm"),
            "block_0": block(get, f"{name}.visn_self_att", "self", f"{name}.visn_inter", f"{name}.visn_output"),
            "block_1": block(get, f"{name}.lang_self_att", "self", f"{name}.lang_inter", f"{name}.lang_output"),
        }

    def encoder(kind: str, count: int, of: Callable[[str], Any] = plain) -> Any:
        return stacked([of(f"encoder.{kind}.{layer}") for layer in range(count)])

    return {
        "text": {
            "token": {"embedding": get("embeddings.word_embeddings.weight")},
            "position": get("embeddings.position_embeddings.weight"),
            "type": get("embeddings.token_type_embeddings.weight"),
            "norm_pre": norm(get, "embeddings.LayerNorm"),
            "transformer": {"blocks": encoder("layer", LAYERS["text"])},
        },
        "regions": {
            "stem": linear(get, "encoder.visn_fc.visn_fc"),
            "norm_stem": norm(get, "encoder.visn_fc.visn_layer_norm"),
            "place": linear(get, "encoder.visn_fc.box_fc"),
            "norm_place": norm(get, "encoder.visn_fc.box_layer_norm"),
            "transformer": {"blocks": encoder("r_layers", LAYERS["regions"])},
        },
        "fusion": {
            "layers": encoder("x_layers", LAYERS["cross"], crossed),
            "projection": linear(get, "pooler.dense"),
        },
    }


def weights() -> dict[str, np.ndarray]:
    """By which outputs are summed up to a loss; nothing of padding counts."""
    random, given = np.random.default_rng(2), inputs()
    return {
        "text": random.normal(size=(B, WORDS, WIDTH)) * given["words"][..., None],
        "regions": random.normal(size=(B, N, WIDTH)) * given["boxes"][..., None],
        "pooled": random.normal(size=(B, WIDTH)),
    }


def ours(params: Any, given: Any) -> Any:
    words = TEXT.apply({"params": params["text"]}, given["ids"], given["words"], types=given["types"], method="tokens")
    boxes = REGIONS.apply({"params": params["regions"]}, given["rows"], given["boxes"], method="tokens")
    fused, pooled = FUSION.apply({"params": params["fusion"]}, {"text": words, "regions": boxes})  # pyright: ignore
    found = {"text": fused["text"][0], "regions": fused["regions"][0], "pooled": pooled}
    return sum(jnp.sum(x * weights()[name]) for name, x in found.items()), found


def test_outputs_and_gradients_are_hugging_face_s() -> None:
    model, given = theirs(), inputs()
    out = model(
        input_ids=torch.from_numpy(given["ids"]).long(),
        token_type_ids=torch.from_numpy(given["types"]).long(),
        attention_mask=torch.from_numpy(given["words"]).float(),
        visual_feats=torch.from_numpy(given["rows"][..., :F]),
        visual_pos=torch.from_numpy(given["rows"][..., F:]),
        visual_attention_mask=torch.from_numpy(given["boxes"]).float(),
    )
    expected = {"text": out.language_output, "regions": out.vision_output, "pooled": out.pooled_output}
    sum((x * torch.from_numpy(weights()[name]).float()).sum() for name, x in expected.items()).backward()  # pyright: ignore
    named = dict(model.named_parameters())
    params = mapped(lambda name: named[name].detach().numpy())
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == sum(weight.numel() for weight in named.values())
    gradients = mapped(lambda name: named[name].grad.numpy())  # pyright: ignore
    (_, found), got = jax.jit(jax.value_and_grad(ours, has_aux=True))(params, given)
    for name, mask in (("text", given["words"]), ("regions", given["boxes"]), ("pooled", slice(None))):
        np.testing.assert_allclose(found[name][mask], expected[name].detach().numpy()[mask], rtol=0, atol=1e-5)
    whole = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradients)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(got):
        place: Any = gradients
        for step in path:
            place = place[step.key]
        if path[-1].key in ("embedding", "position", "type"):
            leaf, place = leaf[1:], place[1:]  # there row 0 of each table is taken for padding, and stays as it is
        # The bias of keys has a true gradient of zero.
        tolerance = 1e-5 * max(np.abs(place).max(), 1e-2 * whole)
        np.testing.assert_allclose(leaf, place, rtol=0, atol=tolerance, err_msg=jax.tree_util.keystr(path))
