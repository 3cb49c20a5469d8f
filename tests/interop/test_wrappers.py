"""Arrays under the names that trainers save them by: read as the model's own, and said."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.errors import UserError
from mmjax.interop import resolve
from mmjax.interop.big_vision import layout as big_vision_layout
from mmjax.interop.wrappers import unwrapped
from tests.interop.small import hf_folder, open_clip_folder
from tests.interop.test_resolve import same

NEEDED = {"logit_scale", "visual.conv1.weight"}
PLAIN = {name: np.full(2, i, np.float32) for i, name in enumerate(sorted(NEEDED))}


def lacking(arrays):
    return len(NEEDED - arrays.keys())


def under(prefix, arrays):
    return {f"{prefix}{name}": array for name, array in arrays.items()}


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "base_model.model.module."])
def test_wrappers_are_taken_off_one_in_another(prefix):
    found, said = unwrapped(under(prefix, PLAIN), lacking, "it")
    assert found.keys() == PLAIN.keys()
    assert said == (f"it: its arrays are read without '{prefix}' in their names",)


@pytest.mark.parametrize(
    ("before", "visual"), [("_orig_mod.", ""), ("", "_orig_mod."), ("_fsdp_wrapped_module.", "_fsdp_wrapped_module.")]
)
def test_what_no_model_calls_a_part_of_its_own_is_taken_out_anywhere(before, visual):
    given = {f"{before}logit_scale": PLAIN["logit_scale"]}
    given[f"{before}visual.{visual}conv1.weight"] = PLAIN["visual.conv1.weight"]
    found, said = unwrapped(given, lacking, "it")
    same(found, PLAIN)
    assert said == (f"it: its arrays are read without '{before or visual}' in their names",)


def test_both_kinds_at_once_and_what_stands_outside():
    given = under("module._orig_mod.", PLAIN) | {"loss.weight": np.ones(1)}
    found, (said,) = unwrapped(given, lacking, "it")
    assert found.keys() == PLAIN.keys()
    assert "without 'module.' and '_orig_mod.' in their names; 1 outside of it aren't read (loss.weight)" in said


@pytest.mark.parametrize("given", [PLAIN, PLAIN | under("module.", PLAIN), under("teacher.", PLAIN)])
def test_names_that_are_the_models_own_or_nobodys_stay(given):
    assert unwrapped(given, lacking, "it") == (given, ())


def test_a_models_own_names_may_begin_as_a_wrapper_does():
    own = under("model.", PLAIN)
    needed = own.keys()
    assert unwrapped(own, lambda arrays: len(needed - arrays.keys()), "it") == (own, ())
    found, (said,) = unwrapped(under("module.", own), lambda arrays: len(needed - arrays.keys()), "it")
    assert found.keys() == needed
    assert "without 'module.' in" in said


@pytest.mark.parametrize(
    ("made", "file"), [(hf_folder, "model.safetensors"), (open_clip_folder, "open_clip_model.safetensors")]
)
def test_folders_of_either_project(made, file, tmp_path):
    folder, lines = made(tmp_path / "it"), []
    plain = resolve.resolve(folder, say=lines.append)
    assert not lines
    save_file(under("module._orig_mod.", load_file(folder / file)), folder / file)
    wrapped = resolve.resolve(folder, say=lines.append)
    same(wrapped.variables, plain.variables)
    assert lines == [f"{folder}: its arrays are read without 'module.' and '_orig_mod.' in their names"]
    save_file(under("network.", load_file(folder / file)), folder / file)
    with pytest.raises(UserError, match=r"lacks .* arrays that this model needs"):
        resolve.resolve(folder)


def test_files_of_big_vision(tmp_path):
    from tests.interop.big_vision.test_layout import IDS, TwoTowers, drawn

    arrays = drawn(TwoTowers(), np.zeros((3, 12, 12, 3), np.float32), IDS)
    np.savez(tmp_path / "plain.npz", **arrays)
    np.savez(tmp_path / "wrapped.npz", **under("model/", arrays))
    plain, wrapped = (big_vision_layout.read(tmp_path / name) for name in ("plain.npz", "wrapped.npz"))
    same(wrapped.variables, plain.variables)
    assert not plain.notes
    assert wrapped.notes[0].endswith("its arrays are read without 'model/' in their names")
