"""Models of open_clip with random parameters, and how they are compared with ours."""

import copy
import json
import math
from pathlib import Path

import jax
import numpy as np
import open_clip
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from safetensors.torch import save_file

from mmjax.experiment.graph import build
from mmjax.interop import bundle as bundles
from mmjax.interop import parameter_rules
from mmjax.interop.open_clip import config as open_clip_config
from mmjax.interop.open_clip import layout as open_clip_layout
from mmjax.interop.open_clip import preprocessing as open_clip_preprocessing
from tests.interop import tables

TOLERANCE = 1e-5  # of the largest value
COUNTERS = "num_batches_tracked"
IDS = np.array([[97, 5, 98, 0, 0, 0, 0], [97, 4, 3, 6, 98, 0, 0], [97, 1, 2, 3, 4, 5, 98]])
MASK = np.array([[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]], bool)


def model_of(config):
    """A model of a `model_cfg`, as open_clip's factory makes it."""
    fields = {key: value for key, value in copy.deepcopy(config).items() if key != "custom_text"}
    if "multimodal_cfg" in config:
        return open_clip.CoCa(**fields)
    return (open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP)(**fields)


def random_model(config, seed=0):
    """A model whose every number is random: norms, biases and running statistics too."""
    torch.manual_seed(seed)
    model = model_of(config).eval()
    with torch.no_grad():
        for name, array in [*model.named_parameters(), *model.named_buffers()]:
            if array.is_floating_point() and "attn_mask" not in name:
                around = 2.0 if name == "logit_scale" else float(array.ndim == 1 and name.endswith("weight"))
                spread = 0.3 if array.ndim < 2 else np.prod(array.shape[1:]) ** -0.5  # so that no softmax saturates
                drawn = around + spread * torch.randn(array.shape)
                array.copy_(3.0 + drawn.abs() if name.endswith("running_var") else drawn)
    return model


def save(model, config, folder, preprocess=None):
    """The folder that open_clip pushes to the hub."""
    folder.mkdir()
    save_file(state(model), folder / "open_clip_model.safetensors")
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess or {}})
    (folder / "open_clip_config.json").write_text(text)
    return folder


def state(model):
    return {name: array.contiguous() for name, array in model.state_dict().items()}


def close(ours, theirs, scale=None):
    ours = np.asarray(ours)
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.isfinite(theirs).all()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * (scale or np.abs(theirs).max()))


def batch_of(bundle, seed=0):
    """Three pictures and texts as ours take them, and the normalised pixels that theirs take, channels first."""
    tower = bundle.config.towers["image"]
    image = np.random.default_rng(seed).integers(0, 256, (3, tower.size, tower.size, 3), dtype=np.uint8)
    normalised = (image / np.float32(255) - np.float32(tower.mean)) / np.float32(tower.std)
    pixels = torch.from_numpy(normalised.astype(np.float32).transpose(0, 3, 1, 2).copy())
    rows = np.ones(3, bool)
    return {"image": image, "text": IDS, "text_mask": MASK, "image_valid": rows, "text_valid": rows}, pixels


def ours_of(bundle, batch):
    """Embeddings (not normalised) by modality, the loss, and its gradient for each parameter by its path."""
    module = build(bundle.config).pretrainer()
    variables = dict(bundle.variables)
    params = variables.pop("params")

    def loss(params):
        (value, _), seen = module.apply(
            {"params": params, **variables},
            batch,
            train=False,
            mutable=["intermediates"],
            capture_intermediates=lambda _, method: method == "pool",
        )
        found = seen["intermediates"]
        return value, {name: found[f"towers_{name}"]["pool"][0] for name in ("image", "text")}

    with jax.default_matmul_precision("highest"):
        (value, embeddings), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return embeddings, value, tables.flat(gradient)


def theirs_of(model, pixels):
    """The same of theirs; the gradients by their names."""
    embeddings = {"image": model.encode_image(pixels), "text": model.encode_text(torch.tensor(IDS))}
    image, text, scale, *bias = model(pixels, torch.tensor(IDS))
    loss = SigLipLoss()(image, text, scale, *bias) if bias else ClipLoss()(image, text, scale)
    model.zero_grad()
    loss.backward()
    return embeddings, loss, {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}


def same_gradients(bundle, ours, theirs):
    """Every parameter's gradient, theirs brought to our layout by the table itself."""
    built = tables.built(bundle.config.towers, bundle.config.objectives)
    rules = [rule for rule in open_clip_layout.rules(built) if rule.ours.startswith("params/")]
    theirs = parameter_rules.take(rules, open_clip_layout.renamed(theirs), "theirs")
    tables.same_gradients(ours, tables.flat(theirs["params"]), TOLERANCE)


def fits_by_shape(config):
    """By names and shapes alone: theirs on no device, against the table and the model of ours. Gives the parameters."""
    with torch.device("meta"):
        model = model_of(config)
    theirs = tables.hollow({name: array.shape for name, array in model.state_dict().items()})
    theirs = open_clip_layout.renamed({name: array for name, array in theirs.items() if not name.endswith(COUNTERS)})
    described = open_clip_config.model_parts(config)
    built = tables.built(*described[:2])
    found, used = tables.taken(open_clip_layout.rules(built), theirs)
    assert used == set(theirs)
    image = open_clip_preprocessing.pictures({}, config)
    config["text_cfg"]["hf_tokenizer_name"] = "none"  # for speed: OpenAI's is none of what is compared
    chain, _ = open_clip_preprocessing.texts(Path("nowhere"), config, built.towers["text"])
    transforms = {"image": open_clip_preprocessing.graph(image.transforms), "text": chain}
    made = bundles.variables_of(build(bundles.stand_in(*described[:2], transforms)))
    assert found == {path: leaf.shape for path, leaf in tables.flat(made).items()}
    return sum(math.prod(shape) for path, shape in found.items() if path.startswith("params/"))


torch.set_num_threads(1)
