"""What goes out to other projects: which experiments do, what differs, and that theirs compute the same."""

import contextlib
import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import fiddle as fdl
import jax
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
open_clip = pytest.importorskip("open_clip")

from mmjax.cli.export import EPILOG  # noqa: E402
from mmjax.cli.main import main  # noqa: E402
from mmjax.data.tokenizers.contract import Tokenizer  # noqa: E402
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece  # noqa: E402
from mmjax.data.tokenizers.subwords import Subwords, SubwordTokenizer  # noqa: E402
from mmjax.data.tokenizers.tokenizer_json import open_clip_bpe, written  # noqa: E402
from mmjax.data.transforms.image import CenterCrop, Decode, RandomResizedCrop, ResizeShorter  # noqa: E402
from mmjax.data.transforms.text import CleanText, Lowercase, PickCaption, Tokenize  # noqa: E402
from mmjax.errors import UserError  # noqa: E402
from mmjax.experiment.diff import Difference  # noqa: E402
from mmjax.experiment.graph import build  # noqa: E402
from mmjax.experiment.load import load_experiment  # noqa: E402
from mmjax.inference.model import load  # noqa: E402
from mmjax.interop import bundle as bundles  # noqa: E402
from mmjax.interop import export as exporting  # noqa: E402
from mmjax.interop.bundle import Bundle  # noqa: E402
from mmjax.interop.export import export  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from mmjax.interop.hf import near as hf_near  # noqa: E402
from mmjax.interop.open_clip import layout as open_clip_layout  # noqa: E402
from mmjax.interop.projects import PROJECTS  # noqa: E402
from mmjax.interop.twins import token_ids as texts_there  # noqa: E402
from mmjax.interop.twins import twin as near  # noqa: E402
from mmjax.models.layers.blocks import Blocks  # noqa: E402
from mmjax.models.towers.text import TextTransformer  # noqa: E402
from mmjax.models.towers.vit import ViT  # noqa: E402
from mmjax.objectives.contrastive.objective import Contrastive  # noqa: E402
from tests.benchmarks.sizes import FOLDER, experiments, files  # noqa: E402
from tests.data import vocabularies  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402
from tests.interop.language_models import logits  # noqa: E402
from tests.interop.small import randomised  # noqa: E402

NOTEBOOKS = Path(__file__).parents[2] / "notebooks" / "spoken_emoji"
SIDE, LENGTH = 16, 24
CROPPED = (fdl.Config(Decode), fdl.Config(RandomResizedCrop, SIDE))
LIKE: dict[str, Any] = {
    "width": 16,
    "depth": 1,
    "heads": 2,
    "activation": "quick_gelu",
    "norm_eps": 1e-5,
}
LABELS = ["a cat", "Hello World!!", "</s> dog"]


def model(pictures: Any = CROPPED, words: Any = None, loss: Any = "softmax", vocab: int = 512, **more: Any) -> Bundle:
    """A CLIP of two blocks; texts by the quickstart's tokenizer."""
    towers = {
        "image": fdl.Config(ViT, patch=8, size=SIDE, cls=True, pooling="cls", pre_norm=True, stem_bias=False, **more),
        "text": fdl.Config(TextTransformer, vocab=vocab, length=LENGTH, causal=True, pooling="last"),
    }
    for tower in towers.values():
        tower.blocks, tower.embed_dim = fdl.Config(Blocks, **LIKE), 8
    cut = fdl.Config(Tokenize, fdl.Config(SentencePiece, vocab), LENGTH, bos=True)
    chains = {"image": pictures, "text": words or (fdl.Config(PickCaption), fdl.Config(Lowercase), cut)}
    objectives = {"pair": fdl.Config(Contrastive, ("image", "text"), loss=loss)}
    made = randomised(bundles.stand_in(towers, objectives, chains), source="it")
    made.variables["params"]["objectives_pair"]["log_scale"] = np.float32(2.5)
    return dataclasses.replace(made, tokenizers={"text": quickstarts()})


def quickstarts() -> PieceTokenizer:
    return PieceTokenizer((NOTEBOOKS / "tokenizers" / "text.model").read_bytes())


def openais(folder: Path) -> Bundle:
    """The same with a tokenizer like open_clip's, which fills up with the piece "!"."""
    tokenizer = SubwordTokenizer(written(open_clip_bpe(vocabularies.write_open_clip(folder))))
    cut = fdl.Config(Tokenize, fdl.Config(Subwords, tokenizer.vocab_size), LENGTH, bos=True)
    made = model(words=(fdl.Config(PickCaption), cut), vocab=tokenizer.vocab_size)
    return dataclasses.replace(made, tokenizers={"text": tokenizer})


def said(*_: str) -> None:
    pass


# --- which experiments go where ---

OUT = {  # of each file's tiny; what isn't here is refused
    ("bert.py", "hf"): ("BertForPreTraining", False),
    ("clip.py", "hf"): ("CLIPModel", True),
    ("blip_caption.py", "hf"): ("BlipForConditionalGeneration", False),
    ("git_base.py", "hf"): ("GitForCausalLM", False),
    ("gpt.py", "hf"): ("GPT2LMHeadModel", False),
    ("cap.py", "bv"): ("ViT", True),
    ("llava.py", "bv"): ("ViT", True),
    ("paligemma.py", "hf"): ("PaliGemmaForConditionalGeneration", False),
    ("paligemma.py", "bv"): ("ViT", False),
    ("mae.py", "hf"): ("ViTMAEForPreTraining", True),
    ("ner.py", "hf"): ("BertForTokenClassification", False),
    ("siglip.py", "hf"): ("SiglipModel", True),
    ("clip.py", "open_clip"): ("CLIP", True),
    ("clip_resnet.py", "open_clip"): ("CLIP", True),
    ("siglip.py", "bv"): ("ViT and text_transformer", False),
}
ALONE = {"blip_itm.py", "videoclip.py"}  # whose image tower alone goes to big_vision, by its parameters
OBSTACLES = {
    "albef.py": r"CLIPModel is nearest(.|\n)*towers.image.pre_norm(.|\n)*towers.text.causal",
    "audiomae.py": "is made of AudioTransformer, MaskedAudio",
    "flava.py": r"CLIPModel is nearest(.|\n)*towers.image.mask_token: False there, True here(.|\n)*towers.text.causal",
    "beit3.py": r"objectives: \[.*\] there, \['MaskedCodes', 'MaskedText'\] here",
    "cap.py": r"BlipForConditionalGeneration is nearest(.|\n)*decoder.norm_embedded: True there, False here",
    "clap.py": r"towers.audio: none there, AudioTransformer here\n.*\n  towers.text.pooling",
    "dialogue.py": r"GPT2LMHeadModel is nearest(.|\n)*towers.image: none there(.|\n)*answers.alone: False there, True",
    "clip4clip.py": r"towers.video: none there, Frames here(.|\n)*\['Contrastive', 'Contrastive'\] here",
    "coca.py": r"CLIPModel is nearest(.|\n)*image: ViT there, PooledViT here(.|\n)*text.cls_last: False there",
    "clip_resnet.py": r"towers.image: none there, ResNet here(.|\n)*--towers text goes, as CLIPTextModelWithProjection",
    "flip.py": r"CLIPModel is nearest(.|\n)*image.pooling(.|\n)*image.positions(.|\n)*text.causal",
    "fusion.py": "is made of Convolutional, Recurrent, ConvolutionalAudio, Classify",
    "gpt3.py": r"GPT2LMHeadModel is nearest, but has\n  objectives.words.decoder.blocks.window: None there, 256 here",
    "imagebind.py": r"towers.audio: none there(.|\n)*towers.image.pooling: 'map' there, 'mean' here",
    "lit.py": r"towers.image.blocks.layer_scale(.|\n)*--towers image goes, as Dinov2Model",
    "llava.py": r"LlavaForConditionalGeneration is nearest(.|\n)*towers.image.norm_pooled: True there, False here",
    "blip_itm.py": r"BlipForImageTextRetrieval is nearest(.|\n)*MomentumContrastive(.|\n)*text.fused_first: None there",
    "blip_vqa.py": r"BlipForImageTextRetrieval is nearest(.|\n)*text.projection_bias: True there, False here",
    "lxmert.py": r"LxmertModel is nearest(.|\n)*objectives: \[\] there(.|\n)*towers.regions.blocks.norm: 'post' there",
    "m3ae.py": r"objectives: \['Contrastive'\] there, \['MaskedTogether'\] here(.|\n)*image.trunk",
    "quickstart.py": r"towers.audio: none there(.|\n)*towers.text.pooling: 'last' there, 'mean' here",
    "vilbert.py": r"towers.regions: none there, Regions here(.|\n)*fusions: \[\] there, \['CoAttention'\] here",
    "vlmo.py": r"towers.image.trunk: None there, MultiwayTrunk(.|\n)*towers.text.way: None there, 'text' here",
    "vilt.py": r"objectives: \[.*\] there, \['WordPatchAlignment', 'MaskedText'\] here",
    "videomae.py": "is made of TubeletViT, MaskedVideo",
    "videobert.py": "is made of TextTransformer, TextTransformer, MaskedText, MaskedText, Matching, Merged",
    "cav_mae.py": r"towers.audio: none there(.|\n)*towers.image.trunk: None there, Mul(.|\n)*towers.image.early: None",
    "videoclip.py": r"towers.video: none there, Frames here(.|\n)*towers.text.pooling: 'last' there, 'mean' here",
    "scst.py": "is made of ResNet, SelfCritical",
    "show_and_tell.py": "is made of ResNet, Caption",
    "reserve.py": "is made of ReserveVision, ReserveAudio, Reserve",
    "trimodal.py": r"towers.audio: none there(.|\n)*towers.text.pooling: 'last' there, 'mean' here",
    "vqa.py": r"objectives: \['Contrastive'\] there, \['Classify'\] here(.|\n)*towers.text.causal",
}


@pytest.mark.parametrize("file", files())
def test_every_experiment_goes_out_or_says_all_that_is_in_the_way(file):
    name = "tiny" if "tiny" in experiments(file) else experiments(file)[0]
    config = load_experiment(f"{FOLDER / file}:{name}")
    variables: dict[str, Any] = {"params": {}}
    if file in ALONE or any(file == known for known, _ in OUT):
        variables = randomised(config).variables
    tokenizers: dict[str, Tokenizer] = {"text": quickstarts()} if "text" in config.towers else {}
    bundle = Bundle(config, variables, tokenizers, file)
    for layout in ("hf", "open_clip", "bv"):
        whole = exporting.without_decoders(bundle, said, encoders=layout == "bv")
        if (file, layout) in OUT:
            kind, inexact = OUT[file, layout]
            twin = PROJECTS[layout].near(whole)
            assert (twin.kind, bool(twin.differs)) == (kind, inexact)
        else:
            with pytest.raises(UserError) as caught:
                exporting.near(whole, layout)
            assert "--inexact writes" not in str(caught.value)
            if layout == "hf":
                assert re.search(OBSTACLES[file], str(caught.value))


FULL = {  # what the README says of the papers' sizes
    "bert.py:base": {"hf": False},
    "blip_vqa.py:base": {"hf": False},
    "blip_caption.py:base": {"hf": False},
    "git_base.py:base": {"hf": False},
    "gpt.py:gpt1": {"hf": False},
    "gpt.py:gpt2_small": {"hf": False},
    "ner.py:base": {"hf": False},
    "siglip.py:vit_b16": {"hf": False, "open_clip": True, "bv": False},
    "clip.py:vit_b32": {"hf": True, "open_clip": True},
    "mae.py:vit_b16": {"hf": True},
    "clip_resnet.py:rn50": {"open_clip": True},
}


@pytest.mark.parametrize("name", FULL)
def test_full_sizes_go_where_the_readme_says(name):
    config = load_experiment(str(FOLDER / name))
    shapes = bundles.variables_of(build(config))
    nothing = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), shapes)
    tokenizers: dict[str, Tokenizer] = {"text": quickstarts()} if "text" in config.towers else {}
    bundle, found = Bundle(config, nothing, tokenizers, name), {}
    for layout in ("hf", "open_clip", "bv"):
        with contextlib.suppress(UserError):
            twin = PROJECTS[layout].near(exporting.without_decoders(bundle, said, encoders=layout == "bv"))
            found[layout] = bool(twin.differs)
    assert found == FULL[name]


# --- Hugging Face ---


def test_transformers_own_pipeline_gives_our_scores(tmp_path, monkeypatch, capsys):
    bundles.save(model(), tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    assert main(["export", "own", "clip", "--to", "hf"]) == 2
    told = capsys.readouterr().err
    assert "as CLIPModel of Hugging Face it isn't quite the same:\n  pictures: ResizeShorter(size=16)" in told
    assert not Path("clip").exists()
    assert main(["export", "own", "clip", "--to", "hf", "--inexact", "--license", "cc0-1.0"]) == 0
    told = capsys.readouterr().out
    assert "  pictures: ResizeShorter(size=16), CenterCrop(size=16) there, RandomResizedCrop(size=16)" in told

    rng, ours, again = np.random.default_rng(0), load("own"), load("clip")
    square, wide = (Image.fromarray(rng.integers(0, 256, (16, w, 3), np.uint8)) for w in (16, 29))
    scale = np.exp(np.float32(2.5))
    from_pil = transformers.AutoImageProcessor.from_pretrained("clip", backend="pil")
    for picture, mine, more in ((square, ours, {}), (wide, again, {"image_processor": from_pil})):
        classify = transformers.pipeline("zero-shot-image-classification", model="clip", **more)
        found = classify(picture, candidate_labels=LABELS, hypothesis_template="{}")
        logits = scale * np.asarray(mine.similarity(image=[picture], text=LABELS))[0]
        wanted = np.exp(logits) / np.exp(logits).sum()
        assert wanted.max() > 0.4  # they aren't all alike
        scores = {one["label"]: one["score"] for one in found}
        np.testing.assert_allclose([scores[label] for label in LABELS], wanted, rtol=0, atol=1e-4)


def test_a_swapped_vocabulary_is_the_same_model(tmp_path):
    bundle = model()
    twin = hf_layout.near(bundle)
    assert twin.swap == (2, 511)
    table, was = (b.variables["params"]["towers_text"]["token"]["embedding"] for b in (twin.bundle, bundle))
    np.testing.assert_array_equal(table[[2, 511]], was[[511, 2]])
    np.testing.assert_array_equal(np.delete(table, [2, 511], 0), np.delete(was, [2, 511], 0))
    assert hf_layout.near(twin.bundle).swap == (0, 0)


def test_a_bert_of_ours_is_theirs_with_both_heads(tmp_path):
    config = load_experiment(f"{FOLDER / 'bert.py'}:tiny")
    drawn = randomised(config)
    variables = jax.tree.map(lambda leaf: np.float32(0.1) * leaf, drawn.variables)  # so that no softmax saturates
    bundle = dataclasses.replace(drawn, variables=variables, tokenizers={"text": quickstarts()})
    out = hf_layout.write(bundle, tmp_path / "bert")
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer(f"a cat {tokenizer.mask_token}")["input_ids"][-2:] == [4, 2]
    texts = ["a cat", "[SEP] Face with tears of joy </s>", "flag: Norway " * 9]
    given = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    theirs = transformers.BertForPreTraining.from_pretrained(out).eval()
    rows = [text for text, _ in texts_there._chained(bundle, texts)]
    np.testing.assert_array_equal(given["input_ids"], rows)
    with torch.no_grad():
        pooled = theirs.bert(**given).pooler_output
    ours = twins.embed(bundle, "text", np.array(rows), given["attention_mask"].numpy().astype(bool))
    twins.close(ours, pooled)
    params = bundle.variables["params"]
    kernel, table = params["objectives_next"]["classify"]["kernel"], params["towers_text"]["token"]["embedding"]
    np.testing.assert_array_equal(theirs.cls.seq_relationship.weight.detach().T, kernel)
    np.testing.assert_array_equal(theirs.cls.predictions.decoder.weight.detach(), table)
    assert not exporting.changed_arrays(hf_layout.near(bundle).bundle, hf_layout.read(out))


def test_a_gpt_of_ours_is_theirs_with_its_tokenizer(tmp_path):
    config = load_experiment(f"{FOLDER / 'gpt.py'}:tiny")
    drawn = randomised(config)
    variables = jax.tree.map(lambda leaf: np.float32(0.1) * leaf, drawn.variables)
    bundles.save(dataclasses.replace(drawn, variables=variables, tokenizers={"text": quickstarts()}), tmp_path / "own")
    export(tmp_path / "own", tmp_path / "gpt", "hf", say=said)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "gpt")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "gpt").eval()
    own = bundles.read(tmp_path / "own")
    given = tokenizer(["a cat", "flag: Norway " * 3], padding=True, return_tensors="pt")
    rows = [
        text[: given["input_ids"].shape[1]] for text, _ in texts_there._chained(own, ["a cat", "flag: Norway " * 3])
    ]
    np.testing.assert_array_equal(given["input_ids"], rows)
    assert rows[0][:1] == [quickstarts().bos]
    mask = given["attention_mask"].numpy().astype(bool)
    with torch.no_grad():
        wanted = theirs(**given).logits.numpy()
    twins.close(np.asarray(logits(own, np.array(rows), mask))[mask], wanted[mask])


def test_what_another_project_has_otherwise_changes_no_other_tower():
    """Towers that were given the very same blocks."""
    made = model()
    made.config.towers["text"].blocks = made.config.towers["image"].blocks
    written_there, told = near.accepted(made, [Difference("towers.image.blocks.norm_eps", 1e-6, 1e-5)])
    assert told == ["towers.image.blocks.norm_eps: 1e-06 there, 1e-05 here"]
    eps = [bundle.config.towers[name].blocks.norm_eps for bundle in (written_there, made) for name in ("image", "text")]
    assert eps == [1e-6, 1e-5, 1e-5, 1e-5]


def test_a_piece_of_texts_does_not_fill_them_up(tmp_path):
    bundle = openais(tmp_path)
    assert bundle.tokenizers["text"].pad == 0
    out = tmp_path / "clip"
    exact = dataclasses.replace(bundle, config=near.with_config(bundle, image=EXACT).config)
    bundles.save(exact, tmp_path / "own")
    export(tmp_path / "own", out, "hf", say=said)
    options = json.loads((out / "tokenizer_config.json").read_text())
    assert (options["pad_token"], options["eos_token"]) == ("<end_of_text>", "<end_of_text>")
    theirs = transformers.AutoTokenizer.from_pretrained(out)(["Hello World!!", "!"])["input_ids"]
    encode = bundle.tokenizers["text"].encode
    ends = bundle.tokenizers["text"].bos, bundle.tokenizers["text"].eos
    assert theirs == [[ends[0], *encode(text), ends[1]] for text in ("Hello World!!", "!")]

    # As it was written once: transformers takes each "!" for padding, and out of the text.
    (out / "tokenizer_config.json").write_text(json.dumps(options | {"pad_token": "!"}))
    twin = hf_layout.near(exact)
    (line,) = texts_there.unlike(exact, twin, hf_layout.read(out), out, PROJECTS["hf"])
    assert re.match(r"texts: of \d+ that were tried \d+ have other ids there: 'Hello World!!', '! !! wow!'", line)


def test_without_their_library_ours_reads_what_was_written(tmp_path, monkeypatch):
    def gone(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(texts_there, "import_module", gone)
    bundle = model(pictures=tuple(fdl.Config(type(t), **_given(t)) for t in EXACT))
    out = hf_layout.write(bundle, tmp_path / "clip")
    twin, again = hf_layout.near(bundle), hf_layout.read(out)
    assert texts_there.unlike(bundle, twin, again, out, PROJECTS["hf"]) == []
    cased = dataclasses.replace(again, tokenizers={"text": SubwordTokenizer(_cased(again.tokenizers["text"].model))})
    (line,) = texts_there.unlike(bundle, twin, cased, out, PROJECTS["hf"])
    assert "have other ids there: 'Hello World!!'" in line


def _cased(file: bytes) -> bytes:
    settings = json.loads(file)
    steps = settings["normalizer"]["normalizers"]
    settings["normalizer"]["normalizers"] = [step for step in steps if step["type"] != "Lowercase"]
    return written(settings)


def test_what_is_turned_upright_is_told():
    @dataclasses.dataclass(frozen=True)
    class Upright(Decode):
        upright: bool = True

    twin = near.Twin(
        model(pictures=(fdl.Config(Upright), fdl.Config(ResizeShorter, 16), fdl.Config(CenterCrop, 16))), ""
    )
    found = near.picture_twin(twin, hf_near.to_hugging_face, lambda said: _without(hf_near.from_hugging_face(said)))
    assert found.differs == ()
    assert found.notes == ("files are turned upright here (EXIF); there it is the caller's part",)


def _without(made: Any) -> Any:
    """As other projects' pictures are read: as they lie in the file."""
    plain = dataclasses.make_dataclass("Plain", [("upright", bool, False)], bases=(Decode,), frozen=True)
    return made._replace(transforms=(plain(), *made.transforms[1:]))


EXACT = (Decode(), ResizeShorter(SIDE), CenterCrop(SIDE))


def test_what_goes_out_exactly(tmp_path):
    """The recipes that the README names."""
    twin = hf_layout.near(model(pictures=tuple(fdl.Config(type(t), **_given(t)) for t in EXACT)))
    assert twin.differs == ()
    cut = fdl.Config(Tokenize, fdl.Config(SentencePiece, 512), LENGTH, bos=True)
    words = (fdl.Config(PickCaption), fdl.Config(CleanText), fdl.Config(Lowercase), cut)
    chain = Decode(background=None), ResizeShorter(SIDE), CenterCrop(SIDE, middle="even")
    bundle = model(pictures=tuple(fdl.Config(type(t), **_given(t)) for t in chain), words=words)
    assert open_clip_layout.near(bundle).differs == ()
    bundles.save(bundle, tmp_path / "own")
    export(tmp_path / "own", tmp_path / "clip", "open_clip", say=said)
    decode, *rest = build(open_clip_layout.read(tmp_path / "clip").config).data.transforms["image"]
    assert (decode.background, *rest) == (None, *chain[1:])


def _given(transform: Any) -> dict[str, Any]:
    return {f.name: getattr(transform, f.name) for f in dataclasses.fields(transform)}


def test_open_clip_sees_what_ours_sees(tmp_path):
    bundle = model()
    bundles.save(bundle, tmp_path / "own")
    lines: list[str] = []
    export(tmp_path / "own", tmp_path / "clip", "open_clip", exact=False, say=lines.append)
    *differs, turned, _ = lines
    assert [line.split(":")[0].strip() for line in differs] == ["pictures", "what is transparent", "texts", "texts"]
    assert "upright" in turned
    assert "'cat &amp; dog'" in lines[3]
    theirs = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'clip'}")(LABELS).numpy()
    made, prepare = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'clip'}")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    with torch.no_grad():
        image, text, *_ = made.eval()(prepare(picture)[None], torch.from_numpy(theirs))
    wanted = load(tmp_path / "own").similarity(image=[picture], text=LABELS)
    np.testing.assert_allclose((image @ text.T).numpy(), wanted, rtol=0, atol=1e-4)


# --- what comes with it ---


@pytest.mark.parametrize("layout", ["mmjax", "hf", "open_clip"])
def test_the_card_says_how_to_load_it_and_that_runs(layout, tmp_path, monkeypatch, capsys):
    bundles.save(model(), tmp_path / "own")
    export(tmp_path / "own", tmp_path / "clip", layout, exact=False, say=said, license="cc-by-4.0")
    card = (tmp_path / "clip" / "README.md").read_text(encoding="utf-8")
    head = card.split("---")[1].splitlines()
    library = {"hf": "transformers"}.get(layout, layout)
    assert f"library_name: {library}" in head
    assert "pipeline_tag: zero-shot-image-classification" in head
    assert 'license: "cc-by-4.0"' in head
    assert "- mmjax" in head
    assert ("RandomResizedCrop(size=16)" in card) == (layout != "mmjax")  # what differs
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    exec(code[1], {})
    assert capsys.readouterr().out.strip()


def test_all_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        bundles.save(model(), tmp_path / "own")
        for layout in ("mmjax", "hf", "open_clip"):
            export(tmp_path / "own", tmp_path / layout, layout, exact=False, say=said)
        PROJECTS["bv"].write(_plain(), tmp_path / "vit.npz")
    finally:
        os.umask(before)
    for file in tmp_path.rglob("*"):
        assert file.stat().st_mode & 0o777 == (0o750 if file.is_dir() else 0o640), file


def _plain() -> Bundle:
    """Of big_vision's kind."""
    tower = fdl.Config(
        ViT,
        patch=8,
        size=SIDE,
        pooling="mean",
        blocks=fdl.Config(Blocks, width=16, depth=1, heads=2, activation="gelu_tanh"),
    )
    return randomised(bundles.stand_in({"image": tower}, {}, {"image": CROPPED}))


def test_the_examples_of_the_help_start(tmp_path, monkeypatch):
    bundles.save(model(), tmp_path / "runs" / "clip")
    (tmp_path / "runs" / "quickstart").symlink_to(NOTEBOOKS)
    monkeypatch.chdir(tmp_path)
    examples = [
        line.split("#")[0].split()[1:] for line in EPILOG.splitlines() if line.startswith("  mmjax export runs/")
    ]
    assert len(examples) == 4
    for words in map(list[Any], examples):
        if "--step" in words:  # which an exported folder has none of
            at = words.index("--step")
            del words[at : at + 2]
        assert main([str(word) for word in words]) == 0, words
