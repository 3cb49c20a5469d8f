"""Words are drawn by the distribution that the settings leave, the same for a row wherever it stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import chisquare

from mmjax.errors import UserError
from mmjax.evaluate.writing.sampling import GREEDY, Sampling, limited, next_words, penalised, row_keys, word_keys

VOCAB = 50
LOGITS = 3 * np.random.default_rng(0).normal(size=(6, VOCAB)).astype(np.float32)


def keys_of(count):
    return row_keys(jax.random.key(3), jnp.arange(count), jnp.zeros(count, jnp.int32))


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"),
    [(5, None, None), (80, None, None), (None, 0.7, None), (None, 1e-6, None), (None, 1.0, None), (None, None, 0.1),
     (8, 0.8, None), (None, 0.95, 0.02), (12, 0.9, 0.05)],
)  # fmt: skip
def test_limits_leave_the_words_that_transformers_leaves(top_k, top_p, min_p):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("transformers.generation.logits_process")
    found = limited(jnp.asarray(LOGITS), Sampling(1.0, top_k, top_p, min_p))
    wanted = torch.from_numpy(LOGITS)
    if top_k is not None:
        wanted = theirs.TopKLogitsWarper(top_k)(None, wanted)
    if top_p is not None:
        wanted = theirs.TopPLogitsWarper(top_p)(None, wanted)
    if min_p is not None:
        wanted = theirs.MinPLogitsWarper(min_p)(None, wanted)
    np.testing.assert_array_equal(found, wanted.numpy())


def test_the_penalty_is_that_of_transformers():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("transformers.generation.logits_process")
    ids = np.random.default_rng(1).integers(0, VOCAB, (6, 9))
    seen = np.zeros((6, VOCAB), bool)
    np.put_along_axis(seen, ids, True, axis=1)
    wanted = theirs.RepetitionPenaltyLogitsProcessor(1.7)(torch.from_numpy(ids), torch.from_numpy(LOGITS))
    np.testing.assert_allclose(penalised(jnp.asarray(LOGITS), jnp.asarray(seen), 1.7), wanted.numpy(), rtol=1e-6)


@pytest.mark.parametrize(("settings", "kept"), [(Sampling(0.7), 8), (Sampling(1.3, top_k=4), 4)])
def test_draws_follow_the_distribution(settings, kept):
    """The chi-squared test doesn't refuse the distribution, and does that of another temperature."""
    logits = np.array([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5], np.float32)
    count = 40_000
    rows = jnp.broadcast_to(jnp.asarray(logits), (count, 8))
    ids, scores = jax.jit(next_words)(rows, settings, keys_of(count), jnp.ones(8, bool))
    seen = np.bincount(ids, minlength=8)
    assert (seen[kept:] == 0).all()

    def refused(temperature):
        return chisquare(seen[:kept], count * softmax(logits[:kept].astype(float) / temperature)).pvalue < 1e-3

    assert not refused(settings.temperature)
    assert refused(1.1 * settings.temperature)
    np.testing.assert_allclose(scores, log_softmax(logits)[ids], atol=1e-5)  # of the model's own distribution


def test_a_row_draws_the_same_in_any_batch_and_another_word_at_another_place():
    settings, allowed = Sampling(1.5), jnp.ones(VOCAB, bool)
    rows, samples = jnp.array([4, 0, 2]), jnp.array([0, 1, 0])
    keys = row_keys(jax.random.key(8), rows, samples)
    logits = jnp.asarray(np.repeat(LOGITS[:1], 3, 0))
    whole = [np.asarray(next_words(logits, settings, word_keys(keys, at), allowed)[0]) for at in range(12)]
    alone = [next_words(logits[:1], settings, word_keys(keys[2:], at), allowed)[0][0] for at in range(12)]
    np.testing.assert_array_equal(np.stack(whole)[:, 2], alone)
    assert len({tuple(column) for column in np.stack(whole).T.tolist()}) == 3  # by the row, and by the sample
    assert len(set(np.stack(whole)[:, 0].tolist())) > 3  # by the place


def test_words_that_are_not_allowed_are_never_chosen():
    allowed = jnp.arange(VOCAB) < 7
    ids, scores = next_words(jnp.asarray(LOGITS), GREEDY.settings(), keys_of(6), allowed)
    np.testing.assert_array_equal(ids, LOGITS[:, :7].argmax(1))
    np.testing.assert_allclose(scores, log_softmax(LOGITS, axis=1)[np.arange(6), ids], atol=1e-5)
    drawn, _ = next_words(jnp.zeros((500, VOCAB)), Sampling(1.0, top_p=0.9), keys_of(500), allowed)
    assert set(np.asarray(drawn).tolist()) == set(range(7))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Sampling(-0.1), "temperature=-0.1 must be at least 0"),
        (Sampling(float("nan")), "temperature=nan must be at least 0"),
        (Sampling(1.0, top_k=0), "top_k=0 must be a whole number"),
        (Sampling(1.0, top_p=0.0), "top_p=0.0 must be above 0 and at most 1"),
        (Sampling(1.0, top_p=1.1), "top_p=1.1 must be above 0 and at most 1"),
        (Sampling(1.0, min_p=-1), "min_p=-1 must be above 0"),
        (Sampling(1.0, repetition_penalty=0), "repetition_penalty=0 must be above 0"),
        (Sampling(top_p=0.9), "top_p=0.9 with temperature=0, which takes the likeliest word anyway"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        settings.check()
