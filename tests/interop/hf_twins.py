"""Models of Hugging Face with random parameters, and how they are compared with ours."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import transformers
from flax.traverse_util import flatten_dict

from mmjax.experiment.graph import build
from mmjax.interop import bundle as bundles
from mmjax.interop import parameter_rules, weight_files
from mmjax.interop.hf import layout as hf_layout

TOLERANCE = 1e-5  # of the largest value


def random_model(cls, config, seed=0):
    """A model whose every parameter is random: norms and biases too, which their initialisation leaves at 1 and 0."""
    torch.manual_seed(seed)
    model = cls(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                around = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
                parameter.copy_(around + 0.3 * torch.randn(parameter.shape))
    return model


def close(ours, theirs, scale=None):
    ours = np.asarray(ours)
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.isfinite(theirs).all()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * (scale or np.abs(theirs).max()))


def family(folder):
    """What a folder is read as."""
    return hf_layout.family_of(json.loads((folder / "config.json").read_text()), str(folder))


def tower_of(bundle, modality):
    """A tower with its parameters."""
    params = bundle.variables["params"][f"towers_{modality}"]
    return build(bundle.config.towers[modality]).bind({"params": params})


def embed(bundle, modality, x, mask=None, **told):
    """A tower's embedding, not normalised; told: what else it takes."""
    tower, params = build(bundle.config.towers[modality]), bundle.variables["params"][f"towers_{modality}"]
    with jax.default_matmul_precision("highest"):
        return jax.jit(tower.apply)({"params": params}, x, mask, **told)


def cosines(bundle, image, ids, mask):
    """Of each picture with each text."""
    units = [np.asarray(embed(bundle, "image", image)), np.asarray(embed(bundle, "text", ids, mask))]
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in units)
    return image @ text.T


def pixels(bundle, size, batch=3, seed=0):
    """Bytes as ours take them, and the normalised pixels that theirs take, channels first."""
    tower = bundle.config.towers["image"]
    image = np.random.default_rng(seed).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    normalised = (image / np.float32(255) - np.float32(tower.mean)) / np.float32(tower.std)
    return image, torch.from_numpy(normalised.astype(np.float32).transpose(0, 3, 1, 2).copy())


def there_and_back(model, folder, computed=()):
    """Saves theirs, reads it as ours, writes that, and opens it as theirs: the same arrays, bit by bit; but for those
    that aren't parameters and are `computed` here."""
    model.save_pretrained(folder / "theirs")
    bundle = hf_layout.read(folder / "theirs")
    hf_layout.write(bundle, folder / "ours")
    renamed = family(folder / "theirs").renamed  # some versions of theirs save other names than others
    first, second = (renamed(weight_files.read(folder / whose)) for whose in ("theirs", "ours"))
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_allclose(second[name], array, rtol=0, atol=1e-6 * (name in computed), err_msg=name)
    again, report = type(model).from_pretrained(folder / "ours", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return bundle, again.eval()


def loss_of(bundle, batch, rngs=None):
    """Our loss, a function of the parameters."""
    module = build(bundle.config).pretrainer()

    def loss(params):
        with jax.default_matmul_precision("highest"):
            return module.apply({"params": params}, batch, train=False, rngs=rngs)[0]

    return jax.jit(loss)


def loss_and_gradients(bundle, batch, rngs=None):
    """Our loss, and its gradient for each parameter by its path."""
    value, gradient = jax.jit(jax.value_and_grad(loss_of(bundle, batch, rngs)))(bundle.variables["params"])
    return value, flatten_dict(gradient, sep="/")


def same_gradients(bundle, ours, model, folder):
    """Every parameter's gradient, theirs brought to our layout by the table itself."""
    kind = family(folder / "theirs")
    theirs = {
        name: np.zeros(parameter.shape, np.float32) if parameter.grad is None else parameter.grad.numpy()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    fusions = bundle.config.__arguments__.get("fusions", {})
    rules = kind.rules(hf_layout.built(hf_layout.Parts(bundle.config.towers, bundle.config.objectives, fusions)))
    theirs = parameter_rules.take(rules, kind.renamed(theirs), "theirs", lambda name: True)
    theirs: dict[str, Any] = flatten_dict(theirs["params"], sep="/")
    assert theirs.keys() == ours.keys()
    largest = max(np.abs(gradient).max() for gradient in theirs.values())
    for path, gradient in theirs.items():  # a key's bias has a true gradient of 0
        # A scalar's (logit scale, bias) is a sum over all pairs whose terms nearly cancel: how far depends on the CPU.
        floor = 1e-1 if np.size(gradient) == 1 else 1e-2
        close(ours[path], gradient, max(np.abs(gradient).max(), floor * largest))


def fits_by_shape(model_class, config):
    """A published size, by names and shapes alone: theirs on no device, against the table and the model of ours."""
    with torch.device("meta"):
        model = model_class(config)
    described = json.loads(config.to_json_string()) | {"architectures": [model_class.__name__]}
    kind = hf_layout.family_of(described, "theirs")
    parts = kind.parts(described)
    theirs = {
        name: np.broadcast_to(np.int8(0), tensor.shape) for name, tensor in model.state_dict(keep_vars=True).items()
    }
    theirs = kind.renamed(theirs)
    described["text_config"] = described.get("text_config", {}) | {"eos_token_id": 2}
    chains, _ = hf_layout.hf_preprocessing.read(Path("nowhere"), kind, described, parts)
    made = bundles.variables_of(build(bundles.stand_in(parts.towers, parts.objectives, chains, parts.fusions)))
    leaves: dict[str, Any] = flatten_dict(made, sep="/")
    wanted = {path: leaf.shape for path, leaf in leaves.items()}
    found, used = {}, set()
    for rule in kind.rules(hf_layout.built(parts)):
        sets = [[name.replace("{layer}", str(i)) for name in rule.theirs] for i in range(max(1, rule.layers))]
        used |= {name for names in sets for name in names}
        shapes = [[theirs[name].shape for name in names] for names in sets]
        assert all(shape == shapes[0] for shape in shapes)
        one = rule.take(*(theirs[name] for name in sets[0]))
        found[rule.ours] = (rule.layers, *one.shape) if rule.layers else one.shape
    assert found == wanted
    unread = {name for name in theirs if name not in used and name not in kind.extras}
    assert all(kind.ignored(name) for name in unread), unread
    return sum(int(np.prod(shape)) for shape in found.values())


def edited(folder, changes, name="config.json"):
    """Another value in a file of the folder; `text_config.hidden_act` is inside."""
    file = folder / name
    config = json.loads(file.read_text())
    for path, value in changes.items():
        *outer, key = path.split(".")
        inner = config
        for name in outer:
            inner = inner[name]
        inner[key] = value
    file.write_text(json.dumps(config))


torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
