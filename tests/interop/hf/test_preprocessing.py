"""Pictures and texts on their way into a Hugging Face model: what a folder says of them is read, and written again."""

import json
from typing import Any

import fiddle as fdl
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mmjax.data.chains import Chains  # noqa: E402
from mmjax.data.sources.documents import DocumentRecords  # noqa: E402
from mmjax.data.sources.folder import FolderRecords  # noqa: E402
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece  # noqa: E402
from mmjax.data.transforms.sentence_pairs import SentencePair  # noqa: E402
from mmjax.data.transforms.text import Lowercase, Tokenize  # noqa: E402
from mmjax.errors import UserError  # noqa: E402
from mmjax.experiment.graph import build  # noqa: E402
from mmjax.inference.model import Model, load  # noqa: E402
from mmjax.interop.bundle import Bundle  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from tests.data import vocabularies  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402

SIZES = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 3}
IMAGE = SIZES | {"image_size": 8, "patch_size": 4}
TEXTS = ["a photo of a cat", "the Cat!", "naive café, a 日"]
NAMED = ["a photo <|endoftext|> of a dog", "<|startoftext|> cat<|endoftext|>", "<|endoftext|>"]
LENGTH = 24
TOWER = '{"model_type": "clip_vision_model"}'


def chained(bundle, modality, value) -> Any:
    """What the model's own chain makes of a value."""
    for transform in bundle.config.data.transforms[modality]:
        step = build(transform)
        if hasattr(step, "tokenizer"):
            step = type(step)(**{**vars(step), "tokenizer": bundle.tokenizers[modality]})
        value = step(value, None)
    return value


def folder_of(model, folder):
    model.save_pretrained(folder)
    return folder


def clip(vocab, **changes):
    text = SIZES | {"vocab_size": vocab, "max_position_embeddings": LENGTH} | changes
    return transformers.CLIPConfig(text_config=text, vision_config=IMAGE, projection_dim=10)


@pytest.mark.parametrize("end", ["its id", "2"])
def test_clip_from_pictures_and_strings(end, tmp_path):
    (tmp_path / "theirs").mkdir()
    vocabularies.write_clip(tmp_path / "theirs")
    pieces = json.loads((tmp_path / "theirs" / "vocab.json").read_text())
    ids = {"bos_token_id": pieces["<|startoftext|>"], "eos_token_id": pieces["<|endoftext|>"]}
    assert ids["eos_token_id"] == len(pieces) - 1
    model = twins.random_model(transformers.CLIPModel, clip(len(pieces), **ids))
    model.save_pretrained(tmp_path / "theirs")
    if end == "2":
        twins.edited(tmp_path / "theirs", {"text_config.eos_token_id": 2})
    said = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 8}, "crop_size": 8}
    said |= {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "theirs" / "preprocessor_config.json").write_text(json.dumps(said))
    bundle = hf_layout.read(tmp_path / "theirs")
    assert bundle.config.towers["image"].std == (0.4, 0.5, 0.6)

    hf_layout.write(bundle, tmp_path / "ours")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    texts = TEXTS + NAMED
    given = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    assert given.keys() == {"input_ids", "attention_mask"}
    rows = [chained(bundle, "text", text) for text in texts]
    for row, theirs, mask in zip(rows, given["input_ids"].numpy(), given["attention_mask"].numpy(), strict=True):
        np.testing.assert_array_equal(row.values[mask == 1], theirs[mask == 1])
    model = transformers.CLIPModel.from_pretrained(tmp_path / "ours").eval()
    assert model.config.text_config.eos_token_id == ids["eos_token_id"]
    features = model.get_text_features(**given).pooler_output
    ids, masks = (np.stack(part) for part in zip(*rows, strict=True))
    twins.close(twins.embed(bundle, "text", ids, masks), features)
    units = features.detach().numpy() / np.linalg.norm(features.detach().numpy(), axis=1, keepdims=True)
    with jax.default_matmul_precision("highest"):  # the first end token ends a text, in strings and in ids
        for inputs in (texts, given["input_ids"].numpy()):
            np.testing.assert_allclose(Model(bundle).embed(text=inputs), units, atol=1e-5)

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (17, 12, 3), dtype=np.uint8))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "ours", use_fast=False, backend="pil")
    values = processor(picture, return_tensors="pt")["pixel_values"]
    ours = twins.embed(bundle, "image", chained(bundle, "image", picture)[None])
    twins.close(ours, model.get_image_features(values).pooler_output)

    again = hf_layout.read(tmp_path / "ours")
    assert again.tokenizers == bundle.tokenizers
    assert build(again.config).data.transforms == build(bundle.config).data.transforms


def test_the_end_of_a_text_must_be_where_the_model_looks_for_it(tmp_path):
    (tmp_path / "it").mkdir()
    vocabularies.write_clip(tmp_path / "it")
    vocab = len(json.loads((tmp_path / "it" / "vocab.json").read_text()))
    model = twins.random_model(transformers.CLIPModel, clip(vocab, eos_token_id=5, bos_token_id=0, pad_token_id=1))
    model.save_pretrained(tmp_path / "it")
    with pytest.raises(UserError, match=rf"eos_token_id=5 .* but its tokenizer ends texts by {vocab - 1}"):
        hf_layout.read(tmp_path / "it")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "it" / name).unlink()
    with pytest.raises(UserError, match=r"eos_token_id=5 .* but it has no tokenizer that says so"):
        hf_layout.read(tmp_path / "it")
    twins.edited(tmp_path / "it", {"text_config.eos_token_id": 2})
    assert hf_layout.read(tmp_path / "it").tokenizers == {}


def test_an_end_that_means_another_id_there_changes_its_place(tmp_path):
    own = PieceTokenizer(SentencePiece(64).train(TEXTS))  # ends texts by 2, which stands for the highest id there
    vocab = own.vocab_size
    assert own.eos == 2
    model = twins.random_model(transformers.CLIPModel, clip(vocab, eos_token_id=2))
    model.save_pretrained(tmp_path / "it")
    read = hf_layout.read(tmp_path / "it")
    chain = (fdl.Config(Lowercase), fdl.Config(Tokenize, fdl.Config(SentencePiece, vocab), LENGTH, bos=True))
    read.config.data.transforms["text"] = chain
    bundle = Bundle(read.config, read.variables, {"text": own})
    hf_layout.write(bundle, tmp_path / "own")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "own")
    given = tokenizer([*TEXTS, "</s> A cat </s>"], padding="max_length", truncation=True, return_tensors="pt")
    assert tokenizer.eos_token_id == vocab - 1
    again = transformers.CLIPModel.from_pretrained(tmp_path / "own").eval()
    rows = [chained(bundle, "text", text) for text in [*TEXTS, "</s> A cat </s>"]]
    texts, masks = (np.stack(part) for part in zip(*rows, strict=True))
    twins.close(twins.embed(bundle, "text", texts, masks), again.get_text_features(**given).pooler_output)


IDS = [[1, 5, 9, 59, 59, 59, 59, 59], [1, 4, 3, 8, 6, 59, 7, 59], [1, 5, 9, 59], [1, 2, 3, 4, 5, 6, 7, 59]]


@pytest.mark.parametrize("end", [59, 2])
def test_ids_of_a_clip_without_a_tokenizer_give_its_vectors(end, tmp_path):
    """The first end token ends a text; what stands behind it changes nothing."""
    kind = transformers.CLIPTextConfig(**SIZES, vocab_size=60, max_position_embeddings=8, projection_dim=10)
    kind.eos_token_id = end
    theirs = twins.random_model(transformers.CLIPTextModelWithProjection, kind)
    model = load(folder_of(theirs, tmp_path / "it"))
    for ids in IDS:
        want = theirs(input_ids=torch.tensor([ids])).text_embeds[0].detach().numpy()
        twins.close(model.embed(text=np.array(ids)), want / np.linalg.norm(want))
    vectors = model.embed(text=[np.array(ids) for ids in IDS])
    twins.close(vectors[2], model.embed(text=np.array(IDS[2], np.int64)))
    arrays = model.preprocess(text=np.array(IDS[:2]))
    assert arrays["text_mask"].sum(1).tolist() == [4, 6]
    with pytest.raises(
        UserError, match=r"has no tokenizer, which the text tower needs to read strings: give token ids"
    ):
        model.embed(text="a cat")
    with pytest.raises(UserError, match="holds ids from 0 to 60; the model's are 0 to 59"):
        model.embed(text=np.array([0, 60]))
    assert "without its tokenizer" in repr(model)
    hf_layout.write(hf_layout.read(tmp_path / "it"), tmp_path / "again")
    twins.close(load(tmp_path / "again").embed(text=np.array(IDS[1])), vectors[1])


def test_ids_of_bert_and_siglip_without_a_tokenizer(tmp_path):
    """BERT's text may hold two ends, and is filled up by 0. SigLIP sees what fills up: only its config can say it."""
    config = transformers.BertConfig(**SIZES, vocab_size=120, max_position_embeddings=8, type_vocab_size=1)
    bert = twins.random_model(transformers.BertModel, config)
    model = load(folder_of(bert, tmp_path / "bert"))
    ids = [101, 7, 102, 9, 4, 102]
    want = bert(input_ids=torch.tensor([ids])).pooler_output[0].detach().numpy()
    twins.close(model.embed(text=np.array(ids)), want / np.linalg.norm(want))
    assert model.preprocess(text=np.array(ids))["text_mask"].sum() == 6
    config = transformers.SiglipTextConfig(**SIZES, vocab_size=60, max_position_embeddings=8, projection_size=24)
    siglip = twins.random_model(transformers.SiglipTextModel, config)
    folder = folder_of(siglip, tmp_path / "siglip")
    full = IDS[1]
    for pad in (None, 3):
        twins.edited(folder, {"pad_token_id": pad})
        model = load(folder)
        want = siglip(input_ids=torch.tensor([full])).pooler_output[0].detach().numpy()
        twins.close(model.embed(text=np.array(full)), want / np.linalg.norm(want))
        if pad is None:
            with pytest.raises(UserError, match=r"is 4 ids of 8, and which id fills up the rest, .*: give all 8"):
                model.embed(text=np.array(full[:4]))
    want = siglip(input_ids=torch.tensor([[*full[:4], 3, 3, 3, 3]])).pooler_output[0].detach().numpy()
    twins.close(model.embed(text=np.array(full[:4])), want / np.linalg.norm(want))


def test_null_values_in_a_config_are_the_defaults_of_the_class(tmp_path):
    folder = folder_of(twins.random_model(transformers.CLIPModel, clip(49_408)), tmp_path / "it")
    plain = hf_layout.read(folder)
    twins.edited(folder, {f"text_config.{key}": None for key in ("eos_token_id", "pad_token_id", "layer_norm_eps")})
    twins.edited(folder, {f"vision_config.{key}": None for key in ("attention_dropout", "num_channels", "hidden_act")})
    twins.edited(folder, {"vision_config_dict": None, "text_config_dict": None})
    again = hf_layout.read(folder)
    assert again.config.towers == plain.config.towers
    twins.edited(folder, {"text_config.hidden_size": None})  # whose default doesn't fit
    with pytest.raises(UserError, match=r"it: heads=3 does not divide width=512"):
        hf_layout.read(folder)
    twins.edited(folder, {"text_config.hidden_size": 24, "text_config.num_attention_heads": 5})
    with pytest.raises(UserError, match=r"it: the sizes of .*q_proj.weight \[24, 24\], .* aren't those of the config"):
        hf_layout.read(folder)


def test_bert_from_strings_and_pairs(tmp_path):
    (tmp_path / "theirs").mkdir()
    vocabularies.write_bert(tmp_path / "theirs")
    vocab = len((tmp_path / "theirs" / "vocab.txt").read_text().splitlines())
    config = transformers.BertConfig(**SIZES, vocab_size=vocab, max_position_embeddings=LENGTH)
    twins.random_model(transformers.BertForMaskedLM, config).save_pretrained(tmp_path / "theirs")
    bundle = hf_layout.read(tmp_path / "theirs")
    tower, objective = bundle.config.towers["text"], bundle.config.objectives["masked"]
    assert (tower.types, objective.mask_id, objective.first_id) == (2, 4, 5)  # of this vocabulary
    hf_layout.write(bundle, tmp_path / "ours")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert tokenizer.mask_token_id == 4
    fill = {"padding": "max_length", "truncation": True, "max_length": LENGTH}
    texts = [*TEXTS, "the cat [SEP] a photo", "[CLS] [MASK] cat [PAD] [SEP]"]
    given = tokenizer(texts, **fill, return_tensors="pt")
    rows = [chained(bundle, "text", text) for text in texts]
    np.testing.assert_array_equal(given["input_ids"], np.stack([row.values for row in rows]))
    np.testing.assert_array_equal(given["attention_mask"], np.stack([row.mask for row in rows]))
    assert not given["token_type_ids"].any()  # of a text alone, whatever stands in it
    model = transformers.BertModel.from_pretrained(tmp_path / "ours", add_pooling_layer=False).eval()
    first = model(**given).last_hidden_state[:, 0].detach().numpy()
    units = first / np.linalg.norm(first, axis=1, keepdims=True)
    with jax.default_matmul_precision("highest"):
        for inputs in (texts, given["input_ids"].numpy()):
            np.testing.assert_allclose(Model(bundle).embed(text=inputs), units, atol=1e-5)
    # A pair's types follow the two texts, also where one of them holds the name of the separator.
    for text, other in (("the cat", "a photo"), ("the [SEP] cat", "a photo"), ("cat", "the [SEP] [SEP] photo")):
        pair = tokenizer(text, other, **fill, return_tensors="pt")
        document = DocumentRecords(FolderRecords({"id": ["a", "b"], "text": [f"{text}\n{other}", "x"]}), r"\n+")
        chain = {"text": (SentencePair(bundle.tokenizers["text"], LENGTH),)}
        row = Chains(chain).row(document[0], lambda modality: None)
        np.testing.assert_array_equal(row["text"], pair["input_ids"][0])
        np.testing.assert_array_equal(row["text_types"], pair["token_type_ids"][0])
        ids, mask, types = (row[name][None] for name in ("text", "text_mask", "text_types"))
        twins.close(twins.embed(bundle, "text", ids, mask, types=types), model(**pair).last_hidden_state[:, 0])


def test_siglip_from_strings(tmp_path):
    (tmp_path / "theirs").mkdir()
    vocabularies.write_siglip(tmp_path / "theirs")
    vocab = PieceTokenizer((tmp_path / "theirs" / "spiece.model").read_bytes()).vocab_size
    config = transformers.SiglipTextConfig(**SIZES, vocab_size=vocab, max_position_embeddings=LENGTH)
    twins.random_model(transformers.SiglipTextModel, config).save_pretrained(tmp_path / "theirs")
    bundle = hf_layout.read(tmp_path / "theirs")
    hf_layout.write(bundle, tmp_path / "ours")
    pytest.importorskip("sentencepiece")
    tokenizer = transformers.SiglipTokenizer.from_pretrained(tmp_path / "ours")
    texts = [*TEXTS, "a photo </s> of a cat", "the cat</s>", "<unk> </s>the"]  # names of special pieces are their ids
    given = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    assert list(given) == ["input_ids"]  # padding is text
    rows = np.stack([chained(bundle, "text", text).values for text in texts])
    np.testing.assert_array_equal(rows, given["input_ids"])
    model = transformers.SiglipTextModel.from_pretrained(tmp_path / "ours").eval()
    pooled = model(**given).pooler_output
    twins.close(twins.embed(bundle, "text", rows), pooled)
    with jax.default_matmul_precision("highest"):
        for inputs in (texts, given["input_ids"].numpy()):
            units = torch.nn.functional.normalize(pooled).detach().numpy()
            np.testing.assert_allclose(Model(bundle).embed(text=inputs), units, atol=1e-5)
    again = hf_layout.read(tmp_path / "ours")
    assert build(again.config).data.transforms == build(bundle.config).data.transforms
    bundle.config.data.transforms["text"] = (fdl.Config(Lowercase), *bundle.config.data.transforms["text"][-1:])
    hf_layout.write(bundle, tmp_path / "other")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "other")
    given = tokenizer([*TEXTS, "A Cat!"], padding="max_length", truncation=True, return_tensors="np")
    rows = np.stack([chained(bundle, "text", text).values for text in [*TEXTS, "A Cat!"]])
    np.testing.assert_array_equal(rows, given["input_ids"])


def test_what_a_folder_does_not_say_is_as_published(tmp_path):
    for config, model, mean in (
        (transformers.CLIPVisionConfig(**IMAGE), transformers.CLIPVisionModel, 0.48145466),
        (transformers.SiglipVisionConfig(**IMAGE), transformers.SiglipVisionModel, 0.5),
    ):
        folder = folder_of(twins.random_model(model, config), tmp_path / model.__name__)
        bundle = hf_layout.read(folder)
        assert bundle.config.towers["image"].mean[0] == mean
        hf_layout.write(bundle, tmp_path / f"{model.__name__} again")
        assert build(hf_layout.read(tmp_path / f"{model.__name__} again").config) == build(bundle.config)


def test_shards_are_one_model(tmp_path):
    model = twins.random_model(transformers.CLIPVisionModel, transformers.CLIPVisionConfig(**IMAGE))
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="8KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    one, many = (flatten_dict(hf_layout.read(tmp_path / name).variables, sep="/") for name in ("one", "many"))
    for path, array in one.items():
        np.testing.assert_array_equal(many[path], array)
    shard = sorted((tmp_path / "many").glob("*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(UserError, match=f"names the shard '{shard.name}', which isn't in the folder"):
        hf_layout.read(tmp_path / "many")


def test_halves_become_float32(tmp_path):
    model = twins.random_model(transformers.CLIPVisionModel, transformers.CLIPVisionConfig(**IMAGE)).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "it")
    variables: dict[str, Any] = flatten_dict(hf_layout.read(tmp_path / "it").variables, sep="/")
    assert {array.dtype.name for array in variables.values()} == {"float32"}
    kernel = variables["params/towers_image/stem/kernel"]
    weight = dict(model.named_parameters())["embeddings.patch_embedding.weight"].float().detach().numpy()
    np.testing.assert_array_equal(kernel, weight.transpose(2, 3, 1, 0).reshape(-1, 24))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "is no folder of a Hugging Face model: it has no config.json"),
        ({"config.json": "{"}, "config.json is no JSON"),
        ({"config.json": "[]"}, r"config.json holds no object but \[\]"),
        (
            {"config.json": '{"model_type": "clip_vision_model"}'},
            "holds no parameters: it has neither model.safetensors",
        ),
        (
            {"config.json": TOWER, "pytorch_model.bin": "cos\nsystem\n(S'true'\ntR."},
            r"pytorch_model.bin holds objects of Python beside its tensors \((os|posix).system\), which aren't opened",
        ),
        (
            {"config.json": '{"model_type": "clip_vision_model"}', "model.safetensors": "?"},
            "model.safetensors can't be",
        ),
    ],
)
def test_folders_that_cannot_be_read(files, message, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        hf_layout.read(tmp_path)
