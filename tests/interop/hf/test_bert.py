"""BERT: the same states, embeddings, logits, loss and gradients, there and back; published sizes by shape."""

import dataclasses

import fiddle as fdl
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mmjax.data.tokenizers.subwords import Subwords, SubwordTokenizer  # noqa: E402
from mmjax.data.tokenizers.tokenizer_json import tokenizer_json  # noqa: E402
from mmjax.data.transforms.tagged import TaggedWords, TokenizeTagged  # noqa: E402
from mmjax.errors import UserError  # noqa: E402
from mmjax.experiment.graph import build  # noqa: E402
from mmjax.interop import bundle as bundles  # noqa: E402
from mmjax.interop import weight_files  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from mmjax.models import Merged, TextTransformer  # noqa: E402
from mmjax.objectives.contract import Context  # noqa: E402
from mmjax.objectives.encoded import EncodedCorrupted  # noqa: E402
from mmjax.objectives.masked import chosen_positions  # noqa: E402
from mmjax.objectives.next_sentence import NextSentence  # noqa: E402
from mmjax.train.initialise import match  # noqa: E402
from tests.data import vocabularies  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402

SIZES = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
FIELDS = SIZES | {"vocab_size": 120, "max_position_embeddings": 9}
IDS = np.array(
    [
        [101, 105, 107, 102, 110, 111, 102, 0, 0],
        [101, 119, 102, 0, 0, 0, 0, 0, 0],
        [101, 110, 111, 112, 104, 113, 114, 115, 102],
    ]
)
MASK = IDS != 0
TYPES = np.array([[0, 0, 0, 0, 1, 1, 1, 0, 0], [0] * 9, [0] * 9])


def config(**changes):
    return transformers.BertConfig(**FIELDS | changes)


def inputs():
    return {
        "input_ids": torch.tensor(IDS),
        "attention_mask": torch.tensor(MASK.astype(np.int64)),
        "token_type_ids": torch.tensor(TYPES),
    }


def tower_of(bundle):
    return build(bundle.config.towers["text"]), bundle.variables["params"]["towers_text"]


def tokens(bundle, ids=IDS):
    tower, params = tower_of(bundle)
    with jax.default_matmul_precision("highest"):
        return jax.jit(lambda p, ids: tower.apply({"params": p}, ids, MASK, types=TYPES, method="tokens")[0])(
            params, ids
        )


@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_states_and_embeddings(activation, tmp_path):
    model = twins.random_model(transformers.BertModel, config(hidden_act=activation))
    if activation == "gelu":
        bundle, model = twins.there_and_back(model, tmp_path)
        assert bundle.config.towers["text"].blocks.dropout == 0.1
    else:  # two names of one function: the other one is written
        model.save_pretrained(tmp_path / "it")
        bundle = hf_layout.read(tmp_path / "it")
    out = model(**inputs())
    twins.close(np.asarray(tokens(bundle))[MASK], out.last_hidden_state.detach().numpy()[MASK])
    twins.close(twins.embed(bundle, "text", IDS, MASK, types=TYPES), out.pooler_output)


def test_a_fusion_that_starts_from_it_reads_two_inputs_as_it_reads_two_segments(tmp_path):
    """As VideoBERT's: what the towers are tables for, with padding between the segments, that has no position."""
    model = twins.random_model(transformers.BertModel, config())
    model.save_pretrained(tmp_path / "it")
    tower, params = tower_of(hf_layout.read(tmp_path / "it"))
    width, blocks = tower.sizes.width, tower.sizes
    fusion = Merged(blocks=blocks, positions=9, pre_norm=True, pooling="first", embed_dim=width, projection_tanh=True)
    table = TextTransformer(vocab=120, length=9, positions="none", pooling="mean",
                            blocks=dataclasses.replace(blocks, depth=0))  # fmt: skip
    given, real = {"text": np.zeros((3, 5), int), "video": np.zeros((3, 4), int)}, {}
    for kind, name in enumerate(given):
        for row in range(3):
            ids = IDS[row][MASK[row] & (TYPES[row] == kind)][: given[name].shape[1]]
            given[name][row, : len(ids)] = ids
        real[name] = given[name] != 0
    held = match({"token": {"embedding": np.zeros((120, width))}}, params, (), None, "here").params
    tokens = {name: table.apply({"params": held}, ids, real[name], method="tokens") for name, ids in given.items()}
    fresh = nn.unbox(jax.eval_shape(fusion.init, jax.random.key(0), tokens))["params"]
    loaded = match(fresh, params, ("^kind_",), None, "here")
    assert sorted(loaded.fresh) == ["kind_text", "kind_video"]
    assert sorted(loaded.unused) == ["token/embedding", "type"]
    kinds = {f"kind_{name}": params["type"][kind] for kind, name in enumerate(given)}
    with jax.default_matmul_precision("highest"):
        found, embedding = jax.jit(fusion.apply)({"params": {**loaded.params, **kinds}}, tokens)
    for row in range(3):
        ids = np.concatenate([given[name][row][real[name][row]] for name in given])[None]
        types = np.concatenate([np.full(real[name][row].sum(), kind) for kind, name in enumerate(given)])[None]
        out = model(input_ids=torch.tensor(ids), token_type_ids=torch.tensor(types))
        states = np.concatenate([np.asarray(found[name][0][row])[real[name][row]] for name in given])
        twins.close(states, out.last_hidden_state[0].detach().numpy())
        twins.close(embedding[row], out.pooler_output[0])


@pytest.mark.parametrize("tied", [True, False])
def test_the_masked_language_head(tied, tmp_path):
    """Their loss at chosen positions, and its gradient for every parameter; a tied table's is the sum of both uses."""
    model = twins.random_model(transformers.BertForMaskedLM, config(tie_word_embeddings=tied))
    if not tied:
        with torch.no_grad():
            model.cls.predictions.bias.copy_(model.cls.predictions.decoder.bias)
    bundle, model = twins.there_and_back(model, tmp_path)
    objective = build(bundle.config.objectives["masked"])
    draw = jax.jit(objective.corrupt.draw)
    seen, chosen = jax.tree.map(np.asarray, draw(jax.random.key(0), np.arange(3), IDS, MASK))
    assert chosen.any(axis=1).all()
    assert (seen[chosen] != IDS[chosen]).any()
    tower, _ = tower_of(bundle)

    def loss(params):
        states, mask = tower.apply({"params": params["towers_text"]}, seen, MASK, types=TYPES, method="tokens")
        view = objective.views()[0]
        encoded = EncodedCorrupted(states, mask, states[:, 0], 0, jnp.asarray(IDS), chosen)
        errors = objective.apply(
            {"params": params["objectives_masked"]}, {view: encoded}, {}, Context(), method="per_example"
        )
        return objective.batch_loss(errors, {"text_valid": jnp.ones(3, bool)})[0]

    with jax.default_matmul_precision("highest"):
        ours, gradients = jax.jit(jax.value_and_grad(loss))(bundle.variables["params"])
    labels = torch.tensor(np.where(chosen, IDS, -100))
    theirs = model(**inputs() | {"input_ids": torch.tensor(seen)}, labels=labels)
    twins.close(ours, theirs.loss)
    theirs.loss.backward()
    if tied:
        words = gradients["objectives_masked"]["words"]["kernel"].T
        gradients["towers_text"]["token"]["embedding"] += words
        gradients["objectives_masked"]["words"]["kernel"] = gradients["towers_text"]["token"]["embedding"].T
    twins.same_gradients(bundle, flatten_dict(gradients, sep="/"), model, tmp_path)


def test_what_is_pretrained_on(tmp_path):
    """The next-sentence head travels beside the model."""
    model = twins.random_model(transformers.BertForPreTraining, config())
    bundle, again = twins.there_and_back(model, tmp_path)
    weight = bundle.extras["cls.seq_relationship.weight"]
    out = again(**inputs())
    pooled = twins.embed(bundle, "text", IDS, MASK, types=TYPES)
    twins.close(pooled @ weight.T + bundle.extras["cls.seq_relationship.bias"], out.seq_relationship_logits)
    kept = bundles.read(bundles.save(bundle, tmp_path / "kept"))
    np.testing.assert_array_equal(kept.extras["cls.seq_relationship.weight"], weight)
    fewer = bundles.Bundle(bundle.config, bundle.variables)
    with pytest.raises(UserError, match=r"would be a BertForPreTraining, which holds cls.seq_relationship.weight"):
        hf_layout.write(fewer, tmp_path / "fewer")


def test_tied_words_and_next_sentences_have_their_logits(tmp_path):
    """Ours with the weights of theirs, and their losses."""
    model = twins.random_model(transformers.BertForPreTraining, config())
    model.save_pretrained(tmp_path / "it")
    bundle = hf_layout.read(tmp_path / "it")
    tower, params = tower_of(bundle)
    head = bundle.variables["params"]["objectives_masked"]
    words = {"dense": head["dense"], "norm": head["norm"], "bias": head["words"]["bias"]}
    weight, bias = (bundle.extras[f"cls.seq_relationship.{part}"] for part in ("weight", "bias"))
    masked = build(bundle.config.objectives["masked"]).clone(tied=True)
    follows = NextSentence(masked.corrupt)
    (view,) = {view for objective in (masked, follows) for view in objective.views()}
    draw = jax.jit(masked.corrupt.draw)
    seen, chosen = jax.tree.map(np.asarray, draw(jax.random.key(0), np.arange(3), IDS, MASK))
    batch = {"text_next": np.array([True, False, True]), "text_valid": np.ones(3, bool)}

    def ours(params):
        bound = tower.bind({"params": params})
        states, mask = bound.tokens(seen, MASK, types=TYPES)
        embedding, table = bound.pool(states, mask), bound.table()
        encoded = {view: EncodedCorrupted(states, mask, embedding, 0, jnp.asarray(IDS), chosen, table)}
        found = []
        for objective, head in ((masked, words), (follows, {"classify": {"kernel": weight.T, "bias": bias}})):
            outputs, state = objective.apply(
                {"params": head},
                encoded,
                batch,
                Context(),
                method="per_example",
                capture_intermediates=lambda module, name: name == "_words" or module.name == "classify",
            )
            found += [objective.batch_loss(outputs, batch)[0], *jax.tree.leaves(state["intermediates"])]
        return found

    with jax.default_matmul_precision("highest"):
        loss, logits, next_loss, next_logits = jax.jit(ours)(params)
    labels = torch.tensor(np.where(chosen, IDS, -100))
    given = inputs() | {"input_ids": torch.tensor(seen)}
    theirs = model(**given, labels=labels, next_sentence_label=torch.tensor([0, 1, 0]))
    positions, real = map(np.asarray, chosen_positions(chosen, logits.shape[1]))
    rows = np.broadcast_to(np.arange(3)[:, None], positions.shape)[real]
    twins.close(np.asarray(logits)[real], theirs.prediction_logits[rows, positions[real]])
    twins.close(next_logits, theirs.seq_relationship_logits)
    twins.close(loss + next_loss, theirs.loss)


NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
WORD_TAGS = np.array(
    [[-1, 1, 2, -1, 0, 3, -1, -1, -1], [-1, 0, -1, -1, -1, -1, -1, -1, -1], [-1, 3, 4, -1, 0, 0, 1, -1, -1]], np.int32
)


def tagger(**changes):
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    return twins.random_model(transformers.BertForTokenClassification, config(**labels | changes))


def test_tags_of_words(tmp_path):
    """Their logits, their loss over the first pieces of words, its gradient for every parameter, and the names of the
    tags; their dropout before the layer, which trains alone, changes none of it."""
    bundle, model = twins.there_and_back(tagger(classifier_dropout=0.5), tmp_path)
    assert bundle.config.towers["text"].embed_dim is None
    assert bundle.config.data.transforms["text"][-1].classes == NAMES
    assert model.config.id2label == dict(enumerate(NAMES))
    assert model.config.label2id == {name: i for i, name in enumerate(NAMES)}
    batch = {"text": IDS, "text_mask": MASK, "text_types": TYPES, "text_tags": WORD_TAGS, "index": np.arange(3)}
    batch["text_valid"] = np.ones(3, bool)
    theirs = model(**inputs(), labels=torch.tensor(np.where(WORD_TAGS < 0, -100, WORD_TAGS)).long())
    module = build(bundle.config).pretrainer()
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(lambda variables: module.apply(variables, batch, "tags", method="predict"))(bundle.variables)
    twins.close(np.asarray(logits)[MASK], theirs.logits.detach().numpy()[MASK])
    loss, gradients = twins.loss_and_gradients(bundle, batch)
    twins.close(loss, theirs.loss)
    theirs.loss.backward()
    twins.same_gradients(bundle, gradients, model, tmp_path)


def test_a_tagger_of_ours_is_theirs_with_its_tokenizer(tmp_path):
    """What is read cuts tagged words as their tokenizer does, and goes out with the names of its tags."""
    vocabularies.write_bert(tmp_path)
    tokenizer = SubwordTokenizer(tokenizer_json(tmp_path))
    tagger(vocab_size=tokenizer.vocab_size, max_position_embeddings=24).save_pretrained(tmp_path / "theirs")
    bundle = hf_layout.read(tmp_path / "theirs")
    cut = fdl.Config(TokenizeTagged, fdl.Config(Subwords, tokenizer.vocab_size), 24, bos=True, classes=NAMES)
    bundle.config.data.transforms["text"] = (cut,)
    bundle = dataclasses.replace(bundle, tokenizers={"text": tokenizer})
    out = hf_layout.write(bundle, tmp_path / "out")
    again = hf_layout.read(out)
    (pick, read) = again.config.data.transforms["text"]
    assert (read.classes, read.length) == (NAMES, 24)
    chain = dataclasses.replace(build(read), tokenizer=again.tokenizers["text"])
    words = TaggedWords(["unbelievable", "cats", "photo"], ["B-PER", "I-PER", "O"]).mapped(build(pick))
    cut_here = chain(words, None)
    ids, mask = cut_here.value
    there = transformers.AutoTokenizer.from_pretrained(out)(
        ["unbelievable", "cats", "photo"], is_split_into_words=True, padding="max_length", truncation=True
    )
    np.testing.assert_array_equal(ids, there["input_ids"])
    firsts = [there.word_ids().index(word) for word in range(3)]
    assert mask.sum() > 5, "a word of several pieces"
    wanted = np.full(24, -1)
    wanted[firsts] = [1, 2, 0]
    np.testing.assert_array_equal(cut_here.labels["tags"], wanted)
    bundle.config.data.transforms["text"][-1].classes = NAMES[:4]
    with pytest.raises(UserError, match=r"tags words by 5 classes, and the chain of its texts names 4, \('O', 'B-PER'"):
        hf_layout.write(bundle, tmp_path / "fewer")


def test_labels_of_a_tagger_s_config(tmp_path):
    """Without names there are numbers, as many as are said or two; what isn't a list of names is refused. A pooler that
    older versions of theirs saved along is left behind."""
    tagger().save_pretrained(tmp_path / "it")
    twins.edited(tmp_path / "it", {"id2label": {"0": "O", "2": "B-PER"}})
    with pytest.raises(UserError, match=r"id2label=\{'0': 'O', '2': 'B-PER'\} names no classes"):
        hf_layout.read(tmp_path / "it")
    twins.edited(tmp_path / "it", {"id2label": None, "num_labels": 0})
    with pytest.raises(UserError, match=r"num_labels=0 is no number of classes"):
        hf_layout.read(tmp_path / "it")
    twins.edited(tmp_path / "it", {"num_labels": 5})
    arrays = weight_files.read(tmp_path / "it")
    arrays |= {"bert.pooler.dense.weight": np.ones((24, 24), np.float32), "bert.pooler.dense.bias": np.ones(24)}
    weight_files.write(arrays, tmp_path / "it")
    bundle = hf_layout.read(tmp_path / "it")
    assert bundle.config.data.transforms["text"][-1].classes == tuple(f"LABEL_{i}" for i in range(5))
    twins.close(bundle.variables["params"]["objectives_tags"]["tags"]["kernel"].T, arrays["classifier.weight"])
    two = transformers.BertForTokenClassification(config())
    two.save_pretrained(tmp_path / "two")
    assert hf_layout.read(tmp_path / "two").config.objectives["tags"].classes == 2


def test_a_fusion_is_no_tagger_of_theirs(tmp_path):
    """Nor is a tower with a pooler, which would be lost."""
    tagger().save_pretrained(tmp_path / "it")
    bundle = hf_layout.read(tmp_path / "it")
    bundle.config.towers["text"].embed_dim = 24
    with pytest.raises(
        UserError, match=r"BertForTokenClassification is nearest, but has\n  towers.text.embed_dim: None"
    ):
        hf_layout.write(bundle, tmp_path / "pooled")
    bundle.config.towers["text"].embed_dim = None
    bundle.config.objectives["tags"].beside = ("image",)
    with pytest.raises(UserError, match=r"is nearest, but has\n  objectives.tags.beside: \(\) there"):
        hf_layout.write(bundle, tmp_path / "beside")


def test_files_of_2018(tmp_path):
    """Norms with a gamma and a beta, positions in a buffer, and PyTorch's own file."""
    model = twins.random_model(transformers.BertForPreTraining, config())
    model.save_pretrained(tmp_path / "new")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in model.state_dict().items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(9)[None]
    (tmp_path / "old").mkdir()
    torch.save(old, tmp_path / "old" / "pytorch_model.bin")
    (tmp_path / "old" / "config.json").write_text((tmp_path / "new" / "config.json").read_text())
    new, old = (flatten_dict(hf_layout.read(tmp_path / name).variables, sep="/") for name in ("new", "old"))
    for path, array in new.items():
        np.testing.assert_array_equal(old[path], array)


LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
PUBLISHED = {
    "base": ({}, 109_482_240),
    "large": (LARGE, 335_141_888),
    "base, cased": ({"vocab_size": 28_996}, 108_310_272),
    "base, multilingual": ({"vocab_size": 119_547}, 177_853_440),
}


def test_the_published_size_of_a_tagger():
    """BERT base, cased, with CoNLL-2003's nine tags."""
    labels = {"id2label": {i: f"LABEL_{i}" for i in range(9)}}
    found = twins.fits_by_shape(
        transformers.BertForTokenClassification, transformers.BertConfig(vocab_size=28_996, **labels)
    )
    pooler = 768 * 768 + 768
    assert found == PUBLISHED["base, cased"][1] - pooler + 9 * 768 + 9


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_sizes(size):
    fields, parameters = PUBLISHED[size]
    assert twins.fits_by_shape(transformers.BertModel, transformers.BertConfig(**fields)) == parameters


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("position_embedding_type", "relative_key", r"position_embedding_type='relative_key' can't be expressed"),
        ("is_decoder", True, r"is_decoder=True can't be expressed"),
        ("hidden_act", "gelu_new", r"hidden_act='gelu_new' can't be in the head"),
        ("architectures", ["BertForQuestionAnswering"], r"'BertForQuestionAnswering'.* BertModel, BertForPreTraining"),
    ],
)
def test_what_cannot_be_expressed_is_named(key, value, message, tmp_path):
    twins.random_model(transformers.BertForMaskedLM, config()).save_pretrained(tmp_path / "it")
    twins.edited(tmp_path / "it", {key: value})
    with pytest.raises(UserError, match=message):
        hf_layout.read(tmp_path / "it")


def test_a_linear_pooler_is_no_berts(tmp_path):
    twins.random_model(transformers.BertModel, config()).save_pretrained(tmp_path / "it")
    bundle = hf_layout.read(tmp_path / "it")
    bundle.config.towers["text"].projection_tanh = False
    with pytest.raises(UserError, match=r"BertModel is nearest, but has\n  towers.text.projection_tanh: True there"):
        hf_layout.write(bundle, tmp_path / "out")
