"""What attention is traced for: the devices of the mesh, which need not be there."""

import jax
import jax.numpy as jnp
import pytest
from jax._src.cudnn import fused_attention_stablehlo  # no public name has the check of a version
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from mmjax.errors import UserError
from mmjax.models.layers.attention import attend_fused, compiled_for
from mmjax.runtime.mesh import Mesh

HEADS = jax.ShapeDtypeStruct((2, 3, 5, 64), jnp.bfloat16)


def of_one(platform: str) -> AbstractMesh:
    """A mesh of one device that isn't there."""
    device = AbstractDevice(device_kind="", num_cores=None, platform=platform)
    return AbstractMesh((1,), ("data",), axis_types=(AxisType.Auto,), abstract_device=device)


def test_fused_attention_is_for_the_platform_of_the_mesh(monkeypatch):
    """A step is compiled for GPUs on a machine that has none."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91_000)
    with jax.sharding.use_abstract_mesh(of_one("gpu")):
        traced = jax.make_jaxpr(attend_fused)(HEADS, HEADS, HEADS)
    assert "dot_product_attention_fwd" in str(traced)
    with jax.sharding.use_abstract_mesh(of_one("tpu")), pytest.raises(UserError, match="GPU, not on 'tpu': set it to"):
        jax.eval_shape(attend_fused, HEADS, HEADS, HEADS)


def test_of_a_mesh_that_is_there_and_of_none():
    assert compiled_for() == "cpu"
    with jax.set_mesh(Mesh().build()):
        assert compiled_for() == "cpu"
