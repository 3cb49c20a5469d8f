"""Converts other projects' preprocessing of pictures to our transforms, and back.

Hugging Face has `preprocessor_config.json` in a model's folder, open_clip `preprocess_cfg` in its config. Both also
hold the mean and standard deviation of the normalisation, which is the image tower's here (pictures travel as bytes).
Neither turns pictures as their EXIF orientation says, so neither do the chains made here; what is given to
`mmjax.load(...)` file by file is turned all the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from mmjax.data.transforms.contract import Transform
from mmjax.data.transforms.image import (
    WHITE,
    CenterCrop,
    Decode,
    Method,
    RandomResizedCrop,
    Resize,
    ResizeLonger,
    ResizeShorter,
)
from mmjax.errors import UserError, unknown

Colour = tuple[float, float, float]

BLACK = (0, 0, 0)
NOTHING = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # the mean and std that leave pictures, scaled to [0, 1], as they are
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of OpenAI's private pictures
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

# PIL's numbers, which Hugging Face writes. Its other filters (box, hamming) are none of ours.
_METHODS: dict[int, Method] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}

# What Hugging Face's image processors do where the config says nothing, or null, in releases of every age: attributes
# of the classes in transformers' models/{clip,siglip,vit,bit,blip}/image_processing_*.py.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "CLIP": {"size": 224, "square": False, "crop": True, "resample": 3, "colours": CLIP},
    "Siglip": {"size": {"height": 224, "width": 224}, "square": False, "crop": False, "resample": 3, "colours": HALVES},
    "ViT": {"size": 224, "square": True, "crop": False, "resample": 2, "colours": HALVES},
    "Bit": {"size": 224, "square": False, "crop": True, "resample": 3, "colours": CLIP},  # DINOv2's
    "Blip": {"size": {"height": 384, "width": 384}, "square": False, "crop": False, "resample": 3, "colours": CLIP},
}
_CROP = 224  # of all those that crop
_ENDINGS = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")


class Preprocessing(NamedTuple):
    """The chain of the image's transforms, and the tower's `mean` and `std` (of pictures in [0, 1])."""

    transforms: tuple[Transform, ...]
    mean: Colour
    std: Colour


@contextmanager
def _named(where: str) -> Iterator[None]:
    """A value that its field can't hold is an error that says where it stands."""
    try:
        yield
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{where} holds a value that its field can't have: {error}") from error


def squared(config: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The `preprocessor_config.json` of ViLT's kind, whose pictures keep their shape and are padded, as one of SigLIP's
    that scales them to squares of `size` pixels; and FLAVA's, whose scaling to squares it is. Others are unchanged.
    """
    name = str(config.get("image_processor_type") or config.get("feature_extractor_type"))
    if name not in {f"{kind}{ending}" for kind in ("Vilt", "Flava") for ending in _ENDINGS}:
        return dict(config)
    padded = ("size", "size_divisor", "do_pad", "pad_size", "do_center_crop", "crop_size", "feature_extractor_type")
    kept = {key: value for key, value in config.items() if key not in padded}
    return {**kept, "image_processor_type": "SiglipImageProcessor", "size": {"height": size, "width": size}}


@_named("preprocessor_config.json")
def from_hugging_face(config: Mapping[str, Any]) -> Preprocessing:
    """A `preprocessor_config.json` of CLIP's, SigLIP's, ViT's, BiT's (DINOv2) or BLIP's kind.

    The result equals Hugging Face's processors that use PIL, byte for byte; those that use torch (`use_fast`)
    interpolate otherwise, by some grey levels where a picture is enlarged. A null value is the default of the
    processor's class; a null switch (`do_...`) is off, as theirs is.

    Raises:
        UserError: it asks for what our transforms don't do.
    """
    kind = _kind(config)
    defaults = _DEFAULTS[kind]
    config = {name: value for name, value in config.items() if value is not None or name.startswith("do_")}
    _refuse(config, kind, ("do_pad", "do_flip_channel_order", "do_reduce_labels", "do_splits"))
    if not config.get("do_rescale", True) or abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-3:
        raise UserError("preprocessor_config.json: pictures that aren't scaled by 1/255 (do_rescale, rescale_factor)")
    mean, std = defaults["colours"]
    if config.get("do_normalize", True):
        mean, std = _colour(config.get("image_mean", mean)), _colour(config.get("image_std", std), positive=True)
    else:
        mean, std = NOTHING
    chain: list[Transform] = [Decode(upright=False)]
    if config.get("do_resize", True):
        method = _METHODS.get(config.get("resample", defaults["resample"]))
        if method is None:
            raise UserError(f"preprocessor_config.json: resample={config['resample']!r} is none of {_listed(_METHODS)}")
        chain.append(_resize(config.get("size", defaults["size"]), defaults["square"], method))
    if config.get("do_center_crop", defaults["crop"]):
        size = _square(config.get("crop_size", _CROP), "crop_size")
        resized = chain[-1]
        certain = isinstance(resized, Resize | ResizeShorter) and resized.size >= size
        chain.append(CenterCrop(size, fill=None if certain else BLACK))
    if not isinstance(chain[-1], Resize | CenterCrop):
        raise UserError(
            "preprocessor_config.json leaves pictures of many sizes: it has neither do_center_crop nor a "
            "size of height and width"
        )
    return Preprocessing(tuple(chain), mean, std)


def to_hugging_face(
    transforms: Sequence[Transform], mean: Sequence[float], std: Sequence[float], exact: bool = True
) -> dict[str, Any]:
    """The `preprocessor_config.json` of a chain as it is in evaluation, where augmentations change nothing.

    Whether pictures are turned upright is said nowhere there: their pipelines do so as they open a file.

    exact: False takes the nearest that can be said: for a `RandomResizedCrop`, whose evaluation cuts out the middle
        square and then resizes, the other order, which shifts the picture by less than a pixel; white for another
        background; and a crop that starts at the pixel before the middle, and fills in black.

    Raises:
        UserError: it can't be said there.
    """
    background, resize, crop = _parts(transforms, exact)
    if exact and background != WHITE:
        raise UserError(f"Hugging Face's image processors put pictures on white, not on background={background}")
    if exact and crop is not None and (crop.middle != "down" or crop.fill not in (None, BLACK)):
        raise UserError(f"Hugging Face's image processors crop with middle='down' and fill in black, not as {crop}")
    config: dict[str, Any] = {
        "do_convert_rgb": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
        "do_resize": resize is not None,
        "do_center_crop": crop is not None,
    }
    if resize is not None:
        config["resample"] = {method: number for number, method in _METHODS.items()}[resize.method]
    if isinstance(resize, Resize):
        config["size"] = {"height": resize.size, "width": resize.size}
    elif isinstance(resize, ResizeShorter):
        config["size"] = {"shortest_edge": resize.size}
    elif resize is not None:
        raise UserError(f"Hugging Face's image processors have no {resize}")
    if crop is not None:
        config["crop_size"] = {"height": crop.size, "width": crop.size}
    return {"image_processor_type": "SiglipImageProcessor" if crop is None else "CLIPImageProcessor", **config}


@_named("preprocess_cfg")
def from_open_clip(config: Mapping[str, Any], size: int = 224) -> Preprocessing:
    """An open_clip `preprocess_cfg`; what it doesn't say is open_clip's default.

    size: the model's `image_size`, which a config without a size means.

    Equal byte for byte to its evaluation transform of an RGB or grey picture. Others become RGB first here, as in its
    training; its evaluation resizes a palette before it looks up the colours (with nearest neighbours), and CMYK and
    transparent pictures as they are.

    Raises:
        UserError: it asks for what our transforms don't do.
    """
    known = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")
    for name in config:
        if name not in known:
            raise UserError(unknown("preprocess_cfg has", name, known, "known fields"))
    config = {name: value for name, value in config.items() if value is not None}  # null is the default there
    if config.get("mode", "RGB") != "RGB":
        raise UserError(f"preprocess_cfg: mode={config['mode']!r} must be 'RGB'")
    size = _square(config.get("size", size), "size")
    # "random" is of training: open_clip evaluates such a model with bicubic.
    interpolation = config.get("interpolation") or "bicubic"
    methods: dict[str, Method] = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
    if interpolation not in methods:
        raise UserError(unknown("preprocess_cfg: interpolation", interpolation, methods, "known ones"))
    method, mode = methods[interpolation], config.get("resize_mode") or "shortest"
    fill = int(config.get("fill_color") or 0)
    chains: dict[str, tuple[Transform, ...]] = {
        "shortest": (ResizeShorter(size, method), CenterCrop(size, middle="even")),
        "longest": (ResizeLonger(size, method), CenterCrop(size, middle="even", fill=(fill, fill, fill))),
        "squash": (Resize(size, method),),
    }
    if mode not in chains:
        raise UserError(unknown("preprocess_cfg: resize_mode", mode, chains, "known ones"))
    mean, std = _colour(config.get("mean") or CLIP[0]), _colour(config.get("std") or CLIP[1], positive=True)
    return Preprocessing((Decode(background=None, upright=False), *chains[mode]), mean, std)


def to_open_clip(
    transforms: Sequence[Transform], mean: Sequence[float], std: Sequence[float], exact: bool = True
) -> dict[str, Any]:
    """The `preprocess_cfg` of a chain as it is in evaluation; `exact` as in `to_hugging_face`.

    With `exact`, the background must be None and the crop's middle "even", as open_clip has them; without, they may be
    others, which matters to transparent pictures and by one pixel of the place.

    Raises:
        UserError: it can't be said there.
    """
    background, resize, crop = _parts(transforms, exact)
    if exact and background is not None:
        raise UserError(f"open_clip leaves the colour under what is transparent, and knows no background={background}")
    if exact and crop is not None and crop.middle != "even":
        raise UserError(f"open_clip crops with middle='even', not as {crop}")
    fill = BLACK if crop is None or crop.fill is None else crop.fill
    same = crop is not None and resize is not None and crop.size == resize.size
    if isinstance(resize, Resize) and (crop is None or same):
        mode = "squash"
    elif isinstance(resize, ResizeShorter) and same:
        mode = "shortest"
    elif isinstance(resize, ResizeLonger) and same and len(set(fill)) == 1:
        mode = "longest"
    else:
        raise UserError(f"open_clip resizes to the size of its crop, and fills in grey: it has no {resize}, {crop}")
    assert resize is not None
    if resize.method not in ("bicubic", "bilinear"):
        raise UserError(f"open_clip resizes bicubic or bilinear, not {resize.method}")
    config = {"size": resize.size, "mode": "RGB", "mean": list(mean), "std": list(std)}
    return {**config, "interpolation": resize.method, "resize_mode": mode, "fill_color": fill[0]}


def _kind(config: Mapping[str, Any]) -> str:
    name = config.get("image_processor_type") or config.get("feature_extractor_type")
    if name is None:
        raise UserError("preprocessor_config.json has no image_processor_type, which says what its fields mean")
    for ending in _ENDINGS:
        if (kind := str(name).removesuffix(ending)) in _DEFAULTS and kind != name:
            return kind
    known = ", ".join(f"{kind}ImageProcessor" for kind in _DEFAULTS)
    raise UserError(f"preprocessor_config.json: image_processor_type={str(name)!r} isn't here; {known} are")


def _refuse(config: Mapping[str, Any], kind: str, names: Sequence[str]) -> None:
    for name in names:
        if config.get(name):
            raise UserError(f"preprocessor_config.json: {name}={config[name]!r} of a {kind} processor isn't done here")


def _resize(size: Any, square: bool, method: Method) -> Transform:
    if isinstance(size, Mapping):
        keys = {key for key, value in size.items() if value is not None}
        if keys == {"shortest_edge"}:
            return ResizeShorter(int(size["shortest_edge"]), method)
        if keys != {"height", "width"}:
            raise UserError(f"preprocessor_config.json: size={dict(size)} must have shortest_edge, or height and width")
    elif isinstance(size, int) and not square:
        return ResizeShorter(size, method)
    return Resize(_square(size, "size"), method)


def _square(size: Any, name: str) -> int:
    """The side, of a number, a pair, or a height and a width."""
    sides = (
        [size["height"], size["width"]] if isinstance(size, Mapping) and size.keys() == {"height", "width"} else size
    )
    sides = [sides] if isinstance(sides, int) else sides
    if not isinstance(sides, Sequence) or not sides or len(set(sides)) != 1:
        raise UserError(f"{name}={size!r} must be one number, or the same height and width: pictures are square here")
    return int(sides[0])


def _colour(values: Any, positive: bool = False) -> Colour:
    """Three numbers; one is all three. positive: what is divided by."""
    several = [values] * 3 if isinstance(values, int | float) else list(values)
    if len(several) != 3:
        raise UserError(f"a mean and a std have 3 numbers, of red, green and blue, not {several}")
    if positive and not all(0 < float(number) < float("inf") for number in several):
        raise UserError(f"a std has numbers above 0, which pictures are divided by, not {several}")
    return float(several[0]), float(several[1]), float(several[2])


def _parts(
    transforms: Sequence[Transform], exact: bool
) -> tuple[tuple[int, int, int] | None, Resize | ResizeShorter | ResizeLonger | None, CenterCrop | None]:
    """The background, the resize and the crop of a chain as it is in evaluation."""
    chain = [transform for transform in transforms if not transform.random or isinstance(transform, RandomResizedCrop)]
    background: tuple[int, int, int] | None = WHITE
    resize: Resize | ResizeShorter | ResizeLonger | None = None
    crop: CenterCrop | None = None
    for transform in chain:
        if isinstance(transform, Decode):
            background = transform.background
        elif isinstance(transform, Resize | ResizeShorter | ResizeLonger) and resize is None and crop is None:
            resize = transform
        elif isinstance(transform, CenterCrop) and crop is None:
            crop = transform
        elif isinstance(transform, RandomResizedCrop) and resize is None and crop is None and not exact:
            resize, crop = ResizeShorter(transform.size, transform.method), CenterCrop(transform.size)
        elif isinstance(transform, RandomResizedCrop) and exact:
            raise UserError(
                f"{transform} cuts out the middle square before it resizes, and others resize first: exact=False takes "
                "that, which shifts pictures by less than a pixel"
            )
        else:
            raise UserError(
                f"other projects resize once and crop once, so {transform} can't be said after {resize}, {crop}"
            )
    return background, resize, crop


def _listed(methods: Mapping[int, str]) -> str:
    return ", ".join(f"{number} ({name})" for number, name in methods.items())
