"""Masked objectives against numpy: only what was hidden counts, and only once over the whole batch."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.decoders.patches import Decoder
from mmjax.models.layers.blocks import Blocks
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contract import Context, View
from mmjax.objectives.encoded import EncodedCorrupted, EncodedKept
from mmjax.objectives.masked import MaskedImage, MaskedText, chosen_positions, kept, normalised_patches
from mmjax.objectives.masking import Keep, KeepOutsideBlocks
from mmjax.objectives.pretrainer import Pretrainer
from tests.objectives.toys import VOCAB, WIDTH, ToyDecoder

B, N, P = 4, 12, 5
KEY = jax.random.key(3)


def first_parameters(objective: Any, encoded: Any) -> Any:
    init = jax.jit(lambda encoded: objective.init(KEY, encoded, {}, Context(), method="per_example"))
    return jax.tree.map(np.asarray, nn.unbox(init(encoded)))


def errors_of(objective: Any) -> Any:
    """`per_example`, compiled: of parameters and what is encoded."""
    return jax.jit(lambda variables, encoded: objective.apply(variables, encoded, {}, Context(), method="per_example"))


def loss_of(objective: Any, variables: Any, outputs: Any, batch: Any) -> Any:
    of = jax.jit(lambda outputs, batch: objective.apply(variables, outputs, batch, method="batch_loss"))
    return of(outputs, batch)


def image_view(patches: Any) -> tuple[MaskedImage, dict[Any, EncodedKept], Any, Any]:
    objective = MaskedImage(decoder=ToyDecoder())
    patch_mask = np.ones((B, N), bool)
    patch_mask[1, 7:] = False
    keep = np.asarray(jax.jit(Keep(0.25).draw)(KEY, np.arange(B, dtype=np.uint32), patch_mask))
    tokens = np.random.default_rng(1).normal(size=(*keep.shape, WIDTH)).astype(np.float32)
    parts: Any = (tokens, keep >= 0, None, 0, patches, patch_mask, keep, (N,))
    encoded = EncodedKept(*parts)
    hidden = patch_mask & ~np.array([[n in row for n in range(N)] for row in keep])
    return objective, {objective.views()[0]: encoded}, hidden, encoded


def test_masked_patches_equal_numpy() -> None:
    patches = np.random.default_rng(0).normal(2, 3, size=(B, N, P)).astype(np.float32)
    objective, encoded, hidden, view = image_view(patches)
    variables, errors = first_parameters(objective, encoded), errors_of(objective)
    outputs = errors(variables, encoded)
    valid = np.array([True, True, False, True])
    loss, _ = loss_of(objective, variables, outputs, {"image_valid": valid})

    decode = jax.jit(lambda params: ToyDecoder().apply(params, view.tokens, view.token_mask, view.keep, (N,), 0))
    states: Any = decode({"params": variables["params"]["decoder"]})
    predict = variables["params"]["predict"]
    prediction = np.asarray(states) @ predict["kernel"] + predict["bias"]
    target = (patches - patches.mean(-1, keepdims=True)) / np.sqrt(patches.var(-1, keepdims=True, ddof=1) + 1e-6)
    error = ((prediction - target) ** 2).mean(-1)
    np.testing.assert_allclose(loss, error[valid][hidden[valid]].mean(), rtol=1e-5)
    np.testing.assert_array_equal(outputs.count, hidden.sum(1))

    # What the encoder saw isn't predicted: changing it as a target changes nothing. What was hidden is.
    for where, same in ((~hidden, True), (hidden, False)):
        changed = {
            k: v.replace(patches=np.where(where[..., None], 7 * patches**2, patches)) for k, v in encoded.items()
        }
        assert bool((np.asarray(errors(variables, changed).total) == np.asarray(outputs.total)).all()) is same


def test_masked_patches_start_near_one() -> None:
    """With normalised targets and a head that says 0: the mean square of the target, (P - 1) / P with unbiased var."""
    normalised = jax.jit(normalised_patches)
    target = np.asarray(normalised(np.random.default_rng(0).normal(3, 2, (B, N, 48))))
    np.testing.assert_allclose(np.mean(target**2), 47 / 48, rtol=1e-4)
    np.testing.assert_array_equal(normalised(np.full((1, 1, 4), np.float32(0.7))), 0)


@pytest.fixture(scope="module")
def autoencoder() -> Any:
    """A small MAE, pictures of noise in floats, which pass as they are, and its loss by what a gradient is taken of."""
    tower = ViT(
        patch=4, size=16, blocks=Blocks(width=16, depth=1, heads=2), positions="sincos", cls=True, pooling="cls"
    )
    decoder = Decoder(blocks=Blocks(width=16, depth=1, heads=2))
    pictures = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype(np.float32)
    batch = {"image_valid": np.ones(8, bool), "index": np.arange(8, dtype=np.uint32)}

    def loss(keep: float, dropout: float = 0.0, train: bool = True, microbatches: int = 1) -> Any:
        dropping = Decoder(blocks=replace(decoder.blocks, dropout=dropout))
        objectives = {"masked": MaskedImage(decoder=dropping, keep=keep)}
        pretrainer = Pretrainer({"image": tower}, objectives, microbatches=microbatches)
        return lambda p, x: pretrainer.apply(p, {**batch, "image": x}, train=train, rngs={"mask": KEY})[0]

    pretrainer = Pretrainer({"image": tower}, {"masked": MaskedImage(decoder=decoder)})
    variables = nn.unbox(jax.jit(pretrainer.init)(KEY, {**batch, "image": pictures}))
    return loss, variables, pictures


def test_the_encoder_sees_a_quarter_and_the_rest_is_its_target(autoencoder: Any) -> None:
    """By the gradient: targets have none, so it is exactly zero at each pixel that the encoder didn't see."""
    loss, variables, pictures = autoencoder
    value, gradient = jax.jit(jax.value_and_grad(loss(0.25), argnums=1))(variables, pictures)
    seen = np.asarray(gradient).reshape(8, 4, 4, 4, 4, 3).any(axis=(2, 4, 5)).reshape(8, 16)
    assert seen.sum(axis=1).tolist() == [4] * 8
    assert len(np.unique(seen, axis=0)) > 1
    # The mean square of targets of noise, and of predictions, by the variance of a Glorot matrix from 16 to 48.
    np.testing.assert_allclose(value, 47 / 48 + 2 * 16 / (16 + 48), atol=0.15)


def test_a_decoders_dropout_is_of_training_and_belongs_to_the_example(autoencoder: Any) -> None:
    loss, variables, pictures = autoencoder
    cases = [{"dropout": 0.0}, {"train": False}, {}, {"microbatches": 2}]
    plain, still, dropped, cut = (jax.jit(loss(0.25, **{"dropout": 0.5} | c))(variables, pictures) for c in cases)
    np.testing.assert_allclose(still, plain, rtol=1e-6)
    assert abs(dropped - plain) > 1e-3
    np.testing.assert_allclose(cut, dropped, rtol=1e-5)


def test_nothing_hidden_is_a_loss_of_zero(autoencoder: Any) -> None:
    loss, variables, pictures = autoencoder
    value, gradients = jax.jit(jax.value_and_grad(loss(1.0)))(variables, pictures)
    assert value == 0
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients))


def test_patches_can_be_hidden_in_other_ways() -> None:
    blocks = KeepOutsideBlocks(0.6)
    assert MaskedImage(decoder=ToyDecoder(), keep=blocks).views() == (View("image", blocks),)


def text_view(
    ids: np.ndarray, mask: np.ndarray, prefix: int = 0, **fields: Any
) -> tuple[MaskedText, dict[Any, EncodedCorrupted]]:
    objective = MaskedText(vocab=VOCAB, rate=0.4, **fields)
    _, chosen = jax.jit(objective.corrupt.draw)(KEY, np.arange(len(ids), dtype=np.uint32), ids, mask)
    tokens = np.random.default_rng(1).normal(size=(len(ids), prefix + ids.shape[1], WIDTH)).astype(np.float32)
    parts: Any = (tokens, np.ones(tokens.shape[:2], bool), tokens[:, 0], prefix, ids, chosen)
    encoded = EncodedCorrupted(*parts)
    return objective, {objective.views()[0]: encoded}


def test_masked_text_equals_numpy_and_starts_at_log_vocab() -> None:
    ids = np.random.default_rng(0).integers(0, VOCAB, (B, N)).astype(np.int32)
    mask = np.arange(N) < np.array([[N], [4], [9], [1]])
    objective, encoded = text_view(ids, mask, prefix=1)
    (view,) = encoded.values()
    variables = first_parameters(objective, encoded)
    outputs = errors_of(objective)(variables, encoded)
    valid = np.array([True, True, True, False])
    loss, metrics = loss_of(objective, variables, outputs, {"text_valid": valid})

    head = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    x = np.asarray(view.tokens, np.float64)[:, 1:] @ head["dense"]["kernel"] + head["dense"]["bias"]
    x = x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    logits = (x * head["norm"]["scale"] + head["norm"]["bias"]) @ head["words"]["kernel"] + head["words"]["bias"]
    surprise = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, ids[..., None], -1)[..., 0]
    counted = np.asarray(view.chosen) & valid[:, None]
    np.testing.assert_allclose(loss, surprise[counted].mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["accuracy"], (logits.argmax(-1) == ids)[counted].mean(), rtol=1e-6)
    np.testing.assert_allclose(loss, math.log(VOCAB), atol=0.1)


def test_a_tied_head_reads_the_towers_table_and_trains_it() -> None:
    """It is the untied head with the table in its last matrix, whose gradient is that matrix's."""
    ids = np.random.default_rng(0).integers(0, VOCAB, (B, N)).astype(np.int32)
    mask = np.arange(N) < np.array([[N], [4], [9], [1]])
    free, encoded = text_view(ids, mask)
    tied, _ = text_view(ids, mask, tied=True)
    variables = first_parameters(free, encoded)["params"]
    words = {"kernel": variables["words"]["kernel"], "bias": np.arange(VOCAB, dtype=np.float32) / VOCAB}
    head = {name: variables[name] for name in ("dense", "norm")}

    def total(tables: Any, objective: MaskedText) -> Any:
        if objective.tied:
            seen = {view: found.replace(table=tables["kernel"].T) for view, found in encoded.items()}
            params = {**head, "bias": tables["bias"]}
        else:
            seen, params = encoded, {**head, "words": tables}
        errors: Any = objective.apply({"params": params}, seen, {}, Context(), method="per_example")
        return errors.total.sum()

    expected, gradient = jax.jit(jax.value_and_grad(partial(total, objective=free)))(words)
    found, ours = jax.jit(jax.value_and_grad(partial(total, objective=tied)))(words)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, gradient)
    (view,) = encoded
    for table, message in (
        (None, "has none"),
        (np.zeros((VOCAB + 1, WIDTH)), f"one of {VOCAB + 1} tokens, {WIDTH} wide"),
    ):
        with pytest.raises(UserError, match=message):
            first_parameters(tied, {view: encoded[view].replace(table=table)})


def test_gathered_positions_are_the_chosen() -> None:
    chosen = np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
    positions, real = map(np.asarray, jax.jit(chosen_positions, static_argnums=1)(chosen, 2))
    assert [row[r].tolist() for row, r in zip(positions, real, strict=True)] == [[1, 3], [], [0]]
    np.testing.assert_array_equal(
        jax.jit(kept, static_argnums=1)(np.array([[2, 0], [-1, -1]]), 4), [[1, 0, 1, 0], [0, 0, 0, 0]]
    )
