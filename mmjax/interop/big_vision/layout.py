"""big_vision's `.npz` files, read and written: vision transformers alone, and two towers (SigLIP, Zhai et al. 2023,
arXiv:2303.15343), whose arrays stand under `img`, `txt`, `t` and `b`.

A file holds arrays alone. Their shapes tell the sizes, heads and pooling; the rest is big_vision's: GELU by tanh, an
epsilon of 1e-6, pixels in [-1, 1], texts filled up with their end token and pooled at the last position. Two things no
file tells: its tokenizer, which is taken from a SentencePiece model (`*.model`) that is alone beside the file, and the
size of pictures whose edges fill no patch (So400m/14 at 384 is read as the 378 that it sees). Pictures are resized by
an antialiased filter here, where big_vision's configs have one that isn't.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import fiddle as fdl
import jax.numpy as jnp
import numpy as np

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.given_ids import GivenIds
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.transforms.image import Decode, Resize
from mmjax.data.transforms.text import Canonicalize, PickCaption, Tokenize
from mmjax.errors import UserError
from mmjax.experiment.diff import Difference
from mmjax.experiment.graph import build
from mmjax.interop import bundle as bundles
from mmjax.interop import parameter_rules
from mmjax.interop.big_vision.near import check_writable_parts
from mmjax.interop.bundle import Bundle
from mmjax.interop.parameter_rules import LAYER, Rule
from mmjax.interop.parts import Parts
from mmjax.interop.twins import equivalence
from mmjax.interop.twins.twin import Twin, accepted, listed_differences, refused, slight
from mmjax.interop.wrappers import unwrapped
from mmjax.models.layers.blocks import Blocks
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contrastive.objective import Contrastive
from mmjax.runtime.files import archives, output, regular

Arrays = dict[str, np.ndarray]

OBJECTIVE = "contrastive"
END = 1  # the id of the end token in the vocabularies of big_vision's configs (c4_en, mc4), which also fills up
TOWERS = {"image": "img/", "text": "txt/"}
KERNELS = {"embedding/kernel", "img/embedding/kernel"}  # of the stem of a tower alone, and of one of two
UNSAID = (
    "a file of big_vision holds numbers alone: what happens to pictures and texts before isn't in it, nor a tokenizer"
)
FIXED: dict[str, Any] = {"activation": "gelu_tanh", "norm_eps": 1e-6}

# Names of older files, in which all submodules of a block were counted together, and positions stood elsewhere.
RENAMED = (
    (r"^params/", ""),
    (r"/MultiHeadDotProductAttention_1/", "/MultiHeadDotProductAttention_0/"),
    (r"(encoderblock\w*)/LayerNorm_2/", r"\1/LayerNorm_1/"),
    (r"/MlpBlock_3/", "/MlpBlock_0/"),
    (r"Transformer/(posembed_input/)?pos_embedding$", "pos_embedding"),
)


def read(path: str | Path) -> Bundle:
    """The model of a file.

    Raises:
        UserError: it isn't there or broken, or holds what no tower here has.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}")

    def named(found: Any) -> tuple[Any, tuple[str, ...]]:
        return unwrapped(found, lambda arrays: not KERNELS & renamed(arrays).keys(), str(path), dot="/")

    table = archives.npz_table(path, _of_training)
    found, notes = named(table)
    shapes: Any = renamed(found)
    try:
        described = model_parts(shapes, str(path))
    except UserError:
        raise
    except (ValueError, IndexError) as error:  # of arrays with other numbers of axes
        raise UserError(f"{path} is no transformer of big_vision's: {error}") from error
    built = Parts(*({name: build(config) for name, config in group.items()} for group in described))
    parameter_rules.check_names(rules(built, shapes), shapes, str(path), _of_training)  # before anything is unpacked
    found, _ = named({name: _fp32(array) for name, array in archives.npz(path, table).items()})
    arrays = renamed(found)
    variables = parameter_rules.take(rules(built, arrays), arrays, str(path), _of_training)
    equivalence.unclip(described, variables)
    tokenizers = _tokenizers(path, built)
    transforms = chains(built, bool(tokenizers))
    config = bundles.stand_in(described.towers, described.objectives, transforms)
    bundle = Bundle(config, variables, tokenizers, str(path), notes=notes)
    bundles.check_bundle(bundle)
    return bundle


def write(bundle: Bundle, path: str | Path, exact: bool = True) -> Path:
    """Writes a file that big_vision loads, a block an `encoderblock_<n>`, and gives its path.

    exact: whether the towers must be theirs to the rounding; else what is written is `near`'s. What happens to pictures
    and texts before stands in no file.

    The position of a CLS is added to it: theirs has none. A logit scale above our objective's clip is written as what
    it is clipped to.

    Raises:
        UserError: big_vision has no model that computes the same (says what differs); there is such a file already.
    """
    path, where = Path(path), bundle.source or "the model"
    if path.exists():
        raise UserError(f"{path} is there already: give another name")
    twin = near(bundle)
    refused(twin, exact, "big_vision")
    arrays, _ = _described(twin.bundle, where)
    _save({f"params/{name}": array for name, array in arrays.items()}, path)
    return path


def near(bundle: Bundle) -> Twin:
    """The model as big_vision's towers compute it, or nearly.

    Raises:
        UserError: big_vision has no model that computes the same (says what differs).
    """
    _, slightly = _described(bundle, bundle.source or "the model")
    bundle, differs = accepted(bundle, slightly)
    kind = "ViT and text_transformer" if "text" in bundle.config.towers else "ViT"
    return Twin(bundle, kind, tuple(differs), (UNSAID,))


def _described(bundle: Bundle, where: str) -> tuple[Arrays, list[Difference]]:
    """Their arrays, and what of the towers that these tell of differs slightly."""
    ours = Parts(dict(bundle.config.towers), dict(bundle.config.objectives))
    built = Parts(*({name: build(config) for name, config in group.items()} for group in ours))
    check_writable_parts(built, where)
    arrays = parameter_rules.give(rules(built, {}), _summed(built, equivalence.clip(built, bundle.variables)), where)
    different = equivalence.differences(model_parts(arrays, where), ours)
    if not all(map(slight, different)):
        told = f"{where}: big_vision has no model that computes the same; the nearest has"
        raise UserError(f"{told}\n{listed_differences(different)}")
    return arrays, different


# --- what a file is ---


def renamed(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays by today's names, without `params/`."""
    found = {}
    for name, array in arrays.items():
        for old, new in RENAMED:
            name = re.sub(old, new, name)
        found[name] = array
    return found


def model_parts(arrays: Mapping[str, np.ndarray], where: str) -> Parts:
    """Towers and objective, as the names and shapes tell.

    Raises:
        UserError: they tell of something else.
    """
    if "embedding/kernel" in arrays:
        return Parts({"image": _image(arrays, "", where)}, {})
    for name, array in (("img", "img/embedding/kernel"), ("txt", "txt/Embed_0/embedding")):
        if array not in arrays:
            near = ", ".join(sorted(arrays)[: parameter_rules.LISTED])
            raise UserError(f"{where}: {name} is no transformer of big_vision's: it lacks {array}; there are {near}")
    loss = "sigmoid" if "b" in arrays else "softmax"
    towers = {"image": _image(arrays, TOWERS["image"], where), "text": _text(arrays, TOWERS["text"], where)}
    return Parts(towers, {OBJECTIVE: fdl.Config(Contrastive, ("image", "text"), loss=loss)})


def _image(arrays: Mapping[str, np.ndarray], at: str, where: str) -> fdl.Config:
    kernel, cls = arrays[f"{at}embedding/kernel"], f"{at}cls" in arrays
    patch, positions = kernel.shape[0], _shape(arrays, f"{at}pos_embedding", where)[1]
    if f"{at}pre_logits/kernel" in arrays:
        raise UserError(f"{where}: {at}pre_logits, a layer before the head, is in no tower here")
    side = math.isqrt(positions)
    if side**2 != positions and not (cls and side**2 + 1 == positions):
        raise UserError(f"{where}: {at}pos_embedding has {positions} positions, which are no square grid")
    pooling = "map" if f"{at}MAPHead_0/probe" in arrays else "cls" if cls else "mean"
    fields = {"patch": patch, "size": side * patch, "cls": cls, "pooling": pooling}
    return fdl.Config(ViT, **_sizes(arrays, f"{at}Transformer/", at, where), **fields)


def _text(arrays: Mapping[str, np.ndarray], at: str, where: str) -> fdl.Config:
    vocab, length = arrays[f"{at}Embed_0/embedding"].shape[0], _shape(arrays, f"{at}pos_embedding", where)[1]
    fields = {"vocab": vocab, "length": length, "attend_padding": True}
    pooling = "map" if f"{at}MAPHead_0/probe" in arrays else "last"
    return fdl.Config(TextTransformer, **_sizes(arrays, f"{at}Encoder_0/", at, where), **fields, pooling=pooling)


def _sizes(arrays: Mapping[str, np.ndarray], encoder: str, at: str, where: str) -> dict[str, Any]:
    scanned = f"{encoder}encoderblock/LayerNorm_0/scale" in arrays
    block = f"{encoder}encoderblock{'' if scanned else '_0'}/"
    *depth, width, heads, _ = _shape(arrays, f"{block}MultiHeadDotProductAttention_0/query/kernel", where)
    blocks = {name.removeprefix(encoder).split("/")[0] for name in arrays if name.startswith(f"{encoder}encoderblock_")}
    head = f"{at}head/kernel"
    return {
        "blocks": fdl.Config(
            Blocks,
            width=width,
            depth=depth[0] if scanned else len(blocks),
            heads=heads,
            mlp_dim=_shape(arrays, f"{block}MlpBlock_0/Dense_0/kernel", where)[-1],
            **FIXED,
        ),
        "embed_dim": arrays[head].shape[-1] if head in arrays else None,
        "projection_bias": head in arrays,
    }


def _shape(arrays: Mapping[str, np.ndarray], name: str, where: str) -> tuple[int, ...]:
    if name not in arrays:
        raise UserError(f"{where} lacks {name}, which tells the sizes of the tower")
    return arrays[name].shape


# --- parameters: Flax on both sides, so most arrays are the same ---


def rules(built: Parts, arrays: Mapping[str, np.ndarray]) -> list[Rule]:
    """The table of built parts. arrays: theirs, which tell whether blocks are stacked; none: they aren't."""
    alone = "text" not in built.towers
    table = _image_rules(built.towers["image"], "" if alone else TOWERS["image"], arrays)
    if alone:
        return table
    ((name, objective),) = built.objectives.items()
    scalars = {"log_scale": "t"} | ({"bias": "b"} if objective.loss == "sigmoid" else {})
    for ours, theirs in scalars.items():  # theirs are arrays of one
        table.append(Rule(f"params/objectives_{name}/{ours}", (theirs,), lambda a: a.reshape(()), lambda a: (a[None],)))
    return table + _text_rules(built.towers["text"], TOWERS["text"], arrays)


def _image_rules(tower: ViT, theirs: str, arrays: Mapping[str, np.ndarray]) -> list[Rule]:
    ours, patch = "params/towers_image", (tower.patch, tower.patch, 3)
    table = [
        Rule(
            f"{ours}/stem/kernel",
            (f"{theirs}embedding/kernel",),
            lambda kernel: kernel.reshape(-1, kernel.shape[-1]),
            lambda kernel: (kernel.reshape(*patch, -1),),
        ),
        Rule(f"{ours}/stem/bias", (f"{theirs}embedding/bias",)),
        _positions(ours, theirs, tower.prefix, math.prod(tower.capacity())),
    ]
    if tower.cls:
        table.append(parameter_rules.leading(f"{ours}/cls", f"{theirs}cls", 2))
    return table + _tower(ours, theirs, f"{theirs}Transformer/", tower, arrays)


def _positions(ours: str, theirs: str, prefix: int, count: int) -> Rule:
    """Ours has a position of the CLS first; in older files theirs has one too, else it is zero."""

    def take(table: np.ndarray) -> np.ndarray:
        return np.pad(table[0], ((prefix + count - table.shape[1], 0), (0, 0)))

    return Rule(f"{ours}/position", (f"{theirs}pos_embedding",), take, lambda table: (table[None, prefix:],))


def _text_rules(tower: TextTransformer, theirs: str, arrays: Mapping[str, np.ndarray]) -> list[Rule]:
    ours = "params/towers_text"
    return [
        Rule(f"{ours}/token/embedding", (f"{theirs}Embed_0/embedding",)),
        parameter_rules.leading(f"{ours}/position", f"{theirs}pos_embedding", 1),
        *_tower(ours, theirs, f"{theirs}Encoder_0/", tower, arrays),
    ]


def _tower(ours: str, theirs: str, encoder: str, tower: Any, arrays: Mapping[str, np.ndarray]) -> list[Rule]:
    """Blocks, last norm, pooling and head."""
    scanned = f"{encoder}encoderblock/LayerNorm_0/scale" in arrays
    block, layers = (f"{encoder}encoderblock", 0) if scanned else (f"{encoder}encoderblock_{LAYER}", tower.sizes.depth)
    blocks, attention = f"{ours}/transformer/blocks", f"{block}/MultiHeadDotProductAttention_0"
    table = [
        *_heads(f"{blocks}/attention/qkv", attention, ("query", "key", "value"), layers),
        *_same(f"{blocks}/attention/out", f"{attention}/out", "kernel", layers),
        *_same(f"{blocks}/norm_attention", f"{block}/LayerNorm_0", "scale", layers),
        *_same(f"{blocks}/norm_mlp", f"{block}/LayerNorm_1", "scale", layers),
        *_same(f"{blocks}/mlp/in", f"{block}/MlpBlock_0/Dense_0", "kernel", layers),
        *_same(f"{blocks}/mlp/out", f"{block}/MlpBlock_0/Dense_1", "kernel", layers),
        *_same(f"{ours}/transformer/norm", f"{encoder}encoder_norm", "scale"),
    ]
    if tower.pooling == "map":
        pool, head = f"{ours}/attention_pool", f"{theirs}MAPHead_0"
        attention = f"{head}/MultiHeadDotProductAttention_0"
        table += [
            parameter_rules.leading(f"{pool}/probe", f"{head}/probe", 2),
            *_heads(f"{pool}/attention/query", attention, ("query",)),
            *_heads(f"{pool}/attention/key_value", attention, ("key", "value")),
            *_same(f"{pool}/attention/out", f"{attention}/out", "kernel"),
            *_same(f"{pool}/norm", f"{head}/LayerNorm_0", "scale"),
            *_same(f"{pool}/mlp/in", f"{head}/MlpBlock_0/Dense_0", "kernel"),
            *_same(f"{pool}/mlp/out", f"{head}/MlpBlock_0/Dense_1", "kernel"),
        ]
    if tower.embed_dim is not None:
        table += _same(f"{ours}/projection", f"{theirs}head", "kernel")
    return table


def _same(ours: str, theirs: str, first: str, layers: int = 0) -> list[Rule]:
    """A kernel, or a scale, and the bias, as they are."""
    return [Rule(f"{ours}/{part}", (f"{theirs}/{part}",), layers=layers) for part in (first, "bias")]


def _heads(ours: str, theirs: str, names: tuple[str, ...], layers: int = 0) -> list[Rule]:
    """`HeadsIn`: [..., heads, parts, head_dim] from an array [..., heads, head_dim] for each part."""

    def take(*arrays: np.ndarray) -> np.ndarray:
        return np.stack(arrays, axis=-2)

    def give(array: np.ndarray) -> list[np.ndarray]:
        return [array[..., i, :] for i in range(len(names))]

    return [
        Rule(f"{ours}/{part}", tuple(f"{theirs}/{name}/{part}" for name in names), take, give, layers)
        for part in ("kernel", "bias")
    ]


def _summed(built: Parts, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with the CLS's position added to the CLS."""
    params, image = dict(variables["params"]), built.towers["image"]
    if image.cls:
        tower = dict(params["towers_image"])
        position = np.asarray(tower["position"])
        tower["cls"] = np.asarray(tower["cls"]) + position[0]
        params["towers_image"] = tower
    return {**variables, "params": params}


# --- inputs and files ---


def chains(built: Parts, reads: bool = True) -> dict[str, Any]:
    """The transforms of pictures and texts in big_vision's configs for these models. reads: there is a tokenizer."""
    size = built.towers["image"].size
    made: dict[str, Any] = {"image": (fdl.Config(Decode, upright=False), fdl.Config(Resize, size, "bilinear"))}
    if "text" in built.towers:
        text = built.towers["text"]
        spec = fdl.Config(SentencePiece, text.vocab, path="") if reads else fdl.Config(GivenIds, text.vocab, END)
        cut = fdl.Config(Tokenize, spec, text.length, pad=END, empty="keep")
        made["text"] = (fdl.Config(PickCaption, empty="keep"), fdl.Config(Canonicalize), cut)
    return made


def _tokenizers(path: Path, built: Parts) -> dict[str, Tokenizer]:
    models = sorted(path.parent.glob("*.model"))
    if "text" not in built.towers or len(models) != 1:
        return {}
    try:
        tokenizer = PieceTokenizer(regular.content(models[0]))
    except ValueError as error:
        raise UserError(f"{models[0]}: {error}") from error
    if tokenizer.vocab_size > built.towers["text"].vocab:
        raise UserError(
            f"{models[0]} has {tokenizer.vocab_size} pieces, and the text tower of {path} {built.towers['text'].vocab}"
        )
    return {"text": tokenizer}


def _of_training(name: str) -> bool:
    return name.startswith(("opt/", "extra/", "states/"))


def _fp32(array: np.ndarray) -> np.ndarray:
    """numpy saves bfloat16 as two bytes of nothing known."""
    array = array.view(jnp.bfloat16) if array.dtype.kind == "V" and array.dtype.itemsize == 2 else array
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _save(arrays: Arrays, path: Path) -> None:
    """All or nothing."""
    try:
        with output.replacing(path) as part, part.open("wb") as file:
            np.savez(file, **cast(Any, arrays))
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror or error}): give another name") from error
