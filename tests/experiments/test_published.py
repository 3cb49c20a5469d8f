"""The published experiments have the published sizes; nothing of them is allocated."""

import re
from math import prod

import jax
import jax.numpy as jnp
import pytest

from mmjax.data.pipeline import batch_spec
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from tests.benchmarks.sizes import BEGIN, END, FOLDER, README, experiments, files, size, table

EXACT = {
    "clip.py:vit_b32": 151_277_313,
    "clip.py:vit_b16": 149_620_737,
    "clip.py:vit_l14": 427_616_513,
    "clip.py:vit_l14_336": 427_944_193,
    "clip_resnet.py:rn50": 102_007_137,
    "clip_resnet.py:rn101": 119_688_033,
    "clip_resnet.py:rn50x4": 178_300_601,
    "clip_resnet.py:rn50x16": 290_979_217,
    "clip_resnet.py:rn50x64": 623_258_305,
    "siglip.py:vit_b16": 203_155_970,
    "flip.py:vit_b16": 139_776_513,
    "flip.py:vit_l16": 412_998_401,
    "flip.py:vit_h14": 966_394_881,
    "m3ae.py:vit_s16": 74_782_266,
    "m3ae.py:vit_b16": 150_757_434,
    "m3ae.py:vit_l16": 376_155_194,
    "audiomae.py:vit_b": 136_336_128,
    "albef.py:base": 209_937_725,
    "cav_mae.py:base": 189_962_497,
    "clip4clip.py:mean": 151_277_313,
    "beit3.py:base": 276_510_730,
    "beit3.py:large": 746_709_514,
    "bert.py:base": 110_106_428,
    "bert.py:large": 336_226_108,
    "flava.py:base": 302_087_287,
    "gpt.py:gpt1": 116_534_784,
    "gpt.py:gpt2_small": 124_439_808,
    "gpt.py:gpt2_medium": 354_823_168,
    "gpt.py:gpt2_large": 774_030_080,
    "gpt.py:gpt2_xl": 1_557_611_200,
    "gpt3.py:small": 125_226_240,
    "gpt3.py:medium": 355_871_744,
    "gpt3.py:large": 760_300_032,
    "gpt3.py:xl": 1_315_723_264,
    "gpt3.py:b2_7": 2_651_553_280,
    "gpt3.py:b6_7": 6_658_404_352,
    "gpt3.py:b13": 12_853_386_240,
    "gpt3.py:b175": 174_604_259_328,
    "lxmert.py:base": 228_051_752,
    "reserve.py:base": 316_412_163,
    "reserve.py:large": 853_117_955,
    "videobert.py:published": 358_535_231,
    "videoclip.py:base": 238_555_393,
    "vilbert.py:base": 239_023_229,
    "vilt.py:b32": 112_219_196,
}

# Millions, as quoted: by open_clip's table of profiles (SigLIP; ViT-H/14 of ImageBind), by the releases' cards (LiT).
QUOTED = {
    "siglip.py:vit_b16_384": 203.45,
    "siglip.py:vit_l16": 652.15,
    "siglip.py:so400m": 877.36,
    "siglip.py:so400m_384": 877.96,
    "lit.py:b16b": 195.87,
    "lit.py:l16l": 638.0,
}

# GFLOPs of a forward pass, image and text, by open_clip's table of profiles (docs/model_profile.csv).
PROFILES = {
    "clip.py:vit_b32": (8.82, 5.96),
    "clip.py:vit_b16": (35.13, 5.96),
    "clip.py:vit_l14": (162.03, 13.3),
    "clip.py:vit_l14_336": (381.92, 13.3),
    "clip_resnet.py:rn50": (12.22, 5.96),
    "clip_resnet.py:rn101": (19.54, 5.96),
    "clip_resnet.py:rn50x4": (42.56, 9.27),
    "clip_resnet.py:rn50x16": (149.39, 13.3),
    "clip_resnet.py:rn50x64": (529.11, 23.55),
    "siglip.py:vit_b16": (35.42, 11.02),
    "siglip.py:vit_b16_384": (112.13, 11.02),
    "siglip.py:vit_l16": (162.56, 39.06),
    "siglip.py:so400m": (220.35, 13.19),
    "siglip.py:so400m_384": (670.35, 53.13),
    "imagebind.py:huge": (334.59, 47.09),
}


@pytest.mark.parametrize("name", EXACT)
def test_parameters(name):
    assert size(name).total == EXACT[name]


@pytest.mark.parametrize("name", QUOTED)
def test_parameters_as_quoted(name):
    assert size(name).total == pytest.approx(QUOTED[name] * 1e6, rel=5e-3)


def test_imagebind_has_openclip_s_towers():
    found = size("imagebind.py:huge").parameters
    assert found["towers_image"] == pytest.approx(632.08e6, rel=1e-5)
    assert found["towers_text"] == pytest.approx(354.03e6, rel=1e-5)


@pytest.mark.parametrize(("name", "decoder", "projector"), [
    ("llava.py:align_7b", 6_738_415_616, 20_979_712),
    ("llava.py:tune_13b", 13_015_864_320, 31_467_520),
])  # fmt: skip
def test_llava_has_vicuna_s_decoder_and_a_projector_of_two_layers(name, decoder, projector):
    assert size(name).parameters["objectives_words"] == decoder + projector


@pytest.mark.parametrize("name", PROFILES)
def test_flops(name):
    image, text = (size(name).flops[modality] for modality in ("image", "text"))
    if name.startswith("clip_resnet.py"):
        image += unread_queries(build(load_experiment(f"{FOLDER}/{name}")).towers["image"])
    assert image == pytest.approx(PROFILES[name][0] * 1e9, rel=1e-2)
    assert text == pytest.approx(PROFILES[name][1] * 1e9, rel=1e-2)


def unread_queries(tower):
    """FLOPs of the attention pooling of all positions but the mean's: open_clip computes them and drops the answers."""
    positions, width = (tower.size // 32) ** 2, 32 * tower.width
    projected = 2 * width * width + 2 * width * tower.embed_dim
    return positions * (projected + 2 * 2 * (positions + 1) * width)


@pytest.mark.parametrize(
    ("name", "width", "depth", "patch", "encoder", "whole"),
    [
        ("vit_b16", 768, 12, 16, 85_647_360, 111_655_680),
        ("vit_l16", 1024, 24, 16, 303_099_904, 329_239_296),
        ("vit_h14", 1280, 32, 14, 630_435_840, 656_613_964),
    ],
)
def test_mae_counts_encoder_and_decoder_in_closed_form(name, width, depth, patch, encoder, whole):
    """Fixed positions aren't parameters, the CLS and the mask token are."""

    def blocks(width, depth):
        return depth * (12 * width**2 + 13 * width) + 2 * width

    values = 3 * patch**2
    tower = values * width + width + width + blocks(width, depth)
    decoder = width * 512 + 512 + 512 + blocks(512, 8) + 512 * values + values
    assert (tower, tower + decoder) == (encoder, whole)
    assert size(f"mae.py:{name}").parameters == {"towers_image": tower, "objectives_masked": decoder}


def test_audiomae_finetuned_is_mean_pooled_with_a_linear_head():
    """The number in AudioMAE's released log, for 527 classes."""
    config = load_experiment(f"{FOLDER}/audiomae.py:vit_b")
    config.towers["audio"].embed_dim, config.towers["audio"].projection_bias = 527, True
    tower = build(config.towers["audio"])
    assert tower.pooling == "mean"
    variables = jax.eval_shape(lambda: tower.init(jax.random.key(0), jnp.zeros((1, tower.samples), jnp.int16)))
    assert sum(prod(leaf.shape) for leaf in jax.tree.leaves(variables)) == 85_659_407
    assert tower.grid(jnp.zeros((1, tower.samples), jnp.int16)) == (64, 8)


def test_cav_mae_counts_what_its_released_code_reads_in_closed_form():
    """There every block has three sets of two norms, and one mask token: its counts are these with the unread ones."""

    def block(width, uses):
        return 12 * width**2 + 9 * width + uses * 4 * width

    def counted(uses_apart, uses_of_decoder):
        stems = 256 * 768 + 768 + 768 * 768 + 768 + 2 * 768  # with the vector of each modality
        encoder = stems + 22 * block(768, uses_apart) + block(768, 3) + 3 * 2 * 768
        heads = 512 * 256 + 256 + 512 * 768 + 768
        decoder = 768 * 512 + 512 + 8 * block(512, uses_of_decoder) + 2 * 512 + 2 * 512 + heads
        return encoder, encoder + decoder

    assert counted(3, 3) == (163_956_480, 190_129_920 - 512)
    found = size("cav_mae.py:base").parameters
    encoder, whole = counted(1, 1)
    assert found["towers_audio"] + found["towers_image"] == encoder == 163_821_312
    assert sum(found.values()) == whole + 2 * 512 + 1  # of each modality a mask token, and the scale


@pytest.mark.parametrize(("name", "parameters"), [("base", 109_482_240), ("large", 335_141_888)])
def test_parameters_of_berts_encoder_and_pooler(name, parameters):
    """The published counts are without the heads of pretraining."""
    assert size(f"bert.py:{name}").parameters["towers_text"] == parameters


@pytest.mark.parametrize(
    ("name", "width", "depth", "backbone", "whole"),
    [("base", 768, 12, 220_987_392, 276_510_730), ("large", 1_024, 24, 672_702_464, 746_709_514)],
)
def test_beit3_counts_backbone_and_heads_in_closed_form(name, width, depth, backbone, whole):
    """Every layer is there twice, with a norm before the last linear map of attention and of the MLP (Magneto)."""
    linear = width**2 + width
    layer = 4 * linear + 3 * 2 * width + (4 * width**2 + 4 * width) + 2 * 4 * width + (4 * width**2 + width)
    trunk = 2 * (depth * layer + 2 * width)
    image = 3 * 16**2 * width + width + 2 * width + (2 + 197) * width  # stem, CLS and mask token, positions
    text = (64_010 + 2 + 1_022) * width
    heads = (width + 1) * 64_010, (width + 1) * 8_192
    assert (trunk + image + text, trunk + image + text + sum(heads)) == (backbone, whole)
    found = size(f"beit3.py:{name}").parameters
    assert found == {
        "towers_image": trunk + image,
        "towers_text": text,
        "objectives_words": heads[0],
        "objectives_patches": heads[1],
    }


DISTANCES = 27**2 + 3 + 2 * 40 - 1 + 2  # of patches and a CLS, along a text, and the two ways between


@pytest.mark.parametrize(
    ("name", "width", "depth", "joint", "scales", "published", "more"),
    [
        ("base_plus", 544, 24, 3, 0, 166_863_840, 0),
        ("base", 768, 12, 2, 2, 175_858_944, 12 * 12 * DISTANCES),
        ("large", 1_024, 24, 3, 2, 562_161_664, 24 * 16 * DISTANCES),
    ],
)
def test_vlmo_counts_trunk_embeddings_and_pooler_in_closed_form(name, width, depth, joint, scales, published, more):
    """Published is the model without heads, and without the relative positions of `base` and `large`, of each layer and
    head, which have no positions of patches."""
    attention = 4 * width**2 + 3 * width + 2 * width  # no bias of keys; the norm before it
    mlp = 8 * width**2 + 5 * width + 2 * width
    trunk = depth * (attention + 2 * mlp + scales * width) + joint * mlp + 2 * width
    image = 3 * 16**2 * width + width + 2 * width  # stem, CLS, kind
    image += 197 * width if name == "base_plus" else 0
    text = (30_522 + 40 + 2 + 2 + 1) * width  # words, positions, types, norm, kind
    pooler, projection = width**2 + width, width**2
    assert trunk + image + text + pooler == published
    found = size(f"vlmo.py:{name}").parameters
    assert found["towers_image"] == trunk + more + image + projection
    assert found["towers_text"] == text + projection
    assert found["fusions_together"] == pooler


def test_blip_counts_both_encoders_in_closed_form():
    """A text's encoder has two more ids than BERT, no types, and in each layer a cross-attention with its norm."""
    width, depth, joint = 768, 12, 256
    linear, mlp, norm, projection = width**2 + width, 8 * width**2 + 5 * width, 2 * width, width * joint + joint
    image = 3 * 16**2 * width + width + width + (1 + 14**2) * width  # the stem, a CLS, positions
    text = (30_522 + 2 + 512) * width + norm
    assert size("blip_itm.py:base").parameters == {
        "towers_image": image + depth * (4 * linear + mlp + 2 * norm) + norm + projection,
        "towers_text": text + depth * (8 * linear + mlp + 3 * norm) + projection,
        "objectives_contrastive": 1,
        "objectives_matching": 2 * width + 2,
    }


@pytest.mark.parametrize(("name", "seen", "depth"), [("base", 768, 12), ("large", 1_024, 24)])
def test_blips_captioner_counts_tower_and_decoder_in_closed_form(name, seen, depth):
    """The words' layers read tokens of the tower's width; before the table of words stand a linear map and a norm."""
    width, vocab = 768, 30_524
    layer, linear, norm = 12 * width**2 + 13 * width, width**2 + width, 2 * width
    image = 3 * 16**2 * seen + seen + seen + (1 + 24**2) * seen + 2 * seen + depth * (12 * seen**2 + 13 * seen)
    cross = 2 * linear + 2 * (seen * width + width) + norm
    words = (vocab + 512) * width + norm + 12 * (layer + cross) + linear + norm + vocab
    assert size(f"blip_caption.py:{name}").parameters == {"towers_image": image, "objectives_caption": words}


def test_paligemma_counts_so400m_a_linear_map_and_gemma():
    found = parameters_of("paligemma.py:stage1")
    counts = {part: sum(prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for part, tree in found.items()}
    projector = sum(
        prod(leaf.shape) for leaf in jax.tree.leaves(found["objectives_caption"]["decoder"]["prefix_image"])
    )
    assert counts == {"towers_image": 412_442_352, "objectives_caption": 2_361_344 + 2_508_531_712}
    assert (projector, sum(counts.values())) == (2_361_344, 2_923_335_408)


def test_git_counts_clips_tower_and_six_layers_in_closed_form():
    """The table of the words that are read isn't that of those that are written."""
    width, vocab = 768, 30_522
    layer, norm = 12 * width**2 + 13 * width, 2 * width
    image = 3 * 16**2 * width + width + (1 + 14**2) * width + 2 * norm + 12 * layer
    projector = width**2 + width + norm
    words = (vocab + 1_024) * width + norm + 6 * layer + vocab * width + vocab
    assert size("git_base.py:base").parameters == {"towers_image": image, "objectives_caption": projector + words}


@pytest.mark.parametrize(
    ("name", "width", "seen", "published"),
    [
        ("base", 768, 12, (88.58, 88.09, 28.94, 85.04, 25.17, 0.59)),
        ("large", 1_024, 24, (308.30, 156.52, 51.43, 302.26, 33.55, 1.05)),
    ],
)
def test_reserve_counts_its_towers_in_closed_form(name, width, seen, published):
    """Millions of the vision, audio, span and joint transformers, of the table and of the head, as in the release: no
    bias at the end of attention and MLP, a norm before the blocks and one behind, and a linear map of a CLS."""

    def encoder(depth):
        return depth * (12 * width**2 + 11 * width) + 4 * width

    linear = width**2 + width
    cls, pool = width + linear, 4 * linear
    vision = 3 * 16**2 * width + width + encoder(seen) + cls + pool
    audio = 2 * 65 * width + width + encoder(12) + cls + pool
    span, joint, table = encoder(4) + cls, encoder(seen), 32_768 * width
    parts = vision, audio, span, joint, table, linear
    assert tuple(round(part / 1e6, 2) for part in parts) == published
    found = size(f"reserve.py:{name}").parameters
    own = span + joint + table + linear + 3
    assert found == {"towers_video": vision, "towers_audio": audio, "objectives_reserve": own}
    held = parameters_of(f"reserve.py:{name}")["objectives_reserve"]
    assert {part: sum(prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for part, tree in held.items()} == {
        "span": span, "joint": joint, "token": table, "head": linear, "log_scale": 3,
    }  # fmt: skip


def parameters_of(name):
    """The shapes of an experiment's parameters."""
    built = build(load_experiment(f"{FOLDER}/{name}"))
    pretrainer, spec = built.pretrainer(), batch_spec(built.data, 1)
    rngs = {"params": jax.random.key(0), "mask": jax.random.key(1)}
    zeros = lambda: {key: jnp.zeros(leaf.shape, leaf.dtype) for key, leaf in spec.items()}  # noqa: E731
    return jax.eval_shape(lambda: pretrainer.init(rngs, zeros()))["params"]


def test_lxmert_without_heads_has_as_many_as_hugging_face_s():
    """`LxmertModel(LxmertConfig())` of transformers 5.24."""
    found = size("lxmert.py:base").parameters
    assert sum(count for part, count in found.items() if not part.startswith("objectives_")) == 207_936_768


def test_vilbert_has_what_the_released_class_holds_but_for_what_nothing_reads():
    """Two linear layers of each co-attention layer: from 1,024 to the 1,024 of the regions, and to the words' 768."""
    found = size("vilbert.py:base")
    unread = 6 * ((1_024**2 + 1_024) + (1_024 * 768 + 768))
    backbone = sum(count for part, count in found.parameters.items() if not part.startswith("objectives_"))
    assert round((backbone + unread) / 1e6, 1) == 246.7
    assert round((found.total + unread) / 1e6, 1) == 250.0


def test_the_table_in_the_readme_has_each_experiment_with_its_parameters():
    """Of the `tiny` ones; the whole table is slow."""
    rows = README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].splitlines()
    counts = dict(re.findall(r"^\| `(\S+)` \| ([\d,]+) ", "\n".join(rows), re.MULTILINE))
    names = [f"{file}:{name}" for file in files() for name in experiments(file)]
    assert [*counts] == names
    for name in names:
        if name.endswith(":tiny"):
            assert counts[name] == f"{size(name).total:,}", "make it anew: python -m tests.benchmarks.sizes --write"


@pytest.mark.slow
def test_the_table_in_the_readme_is_the_code_s():
    _, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    assert rest.partition(END)[0].strip() == table(), "make it anew: python -m tests.benchmarks.sizes --write"


def test_flava_counts_encoders_and_heads_in_closed_form():
    """The published FlavaModel has two poolers more, which no objective reads; a pooler is as large as a projection."""

    def blocks(depth):
        return depth * (12 * 768**2 + 13 * 768) + 2 * 768

    square = 768**2 + 768
    image = 768 * 768 + 768 + 2 * 768 + 197 * 768 + blocks(12)  # the stem, a CLS and a mask token, positions
    text = (30_522 + 512 + 2) * 768 + 2 * 768 + blocks(12)
    fused = 768 + blocks(6) + square
    assert (image + square, text + square, fused) == (86_390_016, 109_483_776, 43_120_128)
    assert image + text + 2 * square + fused + 4 * square + 1 == 241_356_289
    found = size("flava.py:base").parameters
    encoders = {"towers_image": image + square, "towers_text": text + square, "fusions_multimodal": fused + 2 * square}
    heads = {vocab: square + 2 * 768 + 768 * vocab + vocab for vocab in (30_522, 8_192)}
    of = {"mim": 8_192, "mmm_image": 8_192, "mlm": 30_522, "mmm_text": 30_522}
    small = {"objectives_contrastive": 1, "objectives_matching": 2 * 768 + 2}
    assert found == encoders | small | {f"objectives_{name}": heads[vocab] for name, vocab in of.items()}


def test_videobert_counts_bert_large_and_its_visual_words_in_closed_form():
    """BERT-large with its pooler is 335,141,888; a visual word, [>], [SEP] and a hidden one have a vector each."""
    width, words, seen = 1_024, 30_522, 12**4 + 3
    square = width**2 + width
    block = 4 * square + 2 * (4 * width**2) + 5 * width + 2 * 2 * width
    fused = 512 * width + 2 * width + 2 * width + 24 * block + square  # positions, segments, a norm, blocks, the pooler
    assert fused + words * width == 335_141_888
    heads = {name: square + 2 * width + vocab for name, vocab in (("words", words), ("seen", seen))}
    assert size("videobert.py:published").parameters == {
        "towers_text": words * width,
        "towers_video": seen * width,
        "fusions_stream": fused,
        "objectives_align": 2 * width + 2,
        **{f"objectives_{name}": count for name, count in heads.items()},
    }


@pytest.mark.parametrize(("name", "width", "millions"), [("base", 768, 383), ("large", 1_024, 787)])
def test_parameters_of_coca_without_poolers_and_projections(name, width, millions):
    found = size(f"coca.py:{name}")
    attention, norms = 4 * (width**2 + width), 3 * 2 * width
    beside = 2 * (attention + norms) + (256 + 1) * width + 2 * width**2 + 1  # and the logit scale
    assert round((found.total - beside) / 1e6) == millions
