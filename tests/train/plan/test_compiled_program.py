import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.runtime.mesh import Mesh
from mmjax.train.plan.compiled_program import Collective, read_program
from mmjax.train.plan.hlo import array_bytes
from mmjax.train.plan.kernels import REDUCTIONS

AXES = {"data": 2, "fsdp": 2, "tensor": 2}
N = 4_096


@pytest.fixture(scope="module")
def mesh():
    return Mesh(**AXES).build()


def compiled(mesh, function, spec) -> str:
    """The text of `function`, run on each device's part of an fp32 [8 N] vector cut by `spec`."""
    mapped = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    x = jax.ShapeDtypeStruct((8 * N,), jnp.float32, sharding=NamedSharding(mesh, spec))
    return str(jax.jit(mapped).lower(x).compile().as_text())


def one(text, slices=1) -> Collective:
    (found,) = read_program(text, AXES, slices).collectives
    return found


@pytest.mark.parametrize(
    ("kind", "axes", "function", "share"),
    [
        ("all-reduce", ("data",), lambda x: lax.psum(x, "data"), 2 * 1 / 2),
        ("all-reduce", ("data", "fsdp", "tensor"), lambda x: lax.psum(x, tuple(AXES)), 2 * 7 / 8),
        ("all-gather", ("fsdp",), lambda x: lax.all_gather(x, "fsdp").sum(0), 2 * 1 / 2),
        ("reduce-scatter", ("tensor",), lambda x: jnp.tile(lax.psum_scatter(x, "tensor", tiled=True), 2), 1 / 2),
        ("all-to-all", ("tensor",), lambda x: lax.all_to_all(x.reshape(2, -1), "tensor", 0, 0).reshape(-1), 1 / 2),
        ("collective-permute", ("fsdp",), lambda x: lax.ppermute(x, "fsdp", [(0, 1), (1, 0)]), 1),
    ],
)
def test_collectives_their_axes_and_bytes(mesh, kind, axes, function, share):
    """On 8 devices each holds N numbers of 4 bytes; `share`: of them, what a device sends in a ring."""
    found = one(compiled(mesh, function, PartitionSpec(tuple(AXES))))
    assert (found.kind, found.axes, found.count, found.slow) == (kind, axes, 1, False)
    assert found.bytes == share * 4 * N


def test_a_collective_in_a_loop_counts_as_often_as_the_loop_runs(mesh):
    def rounds(x):
        return lax.fori_loop(0, 5, lambda _, x: lax.ppermute(x, "data", [(0, 1), (1, 0)]) * 2, x)

    found = one(compiled(mesh, rounds, PartitionSpec(tuple(AXES))))
    assert (found.count, found.bytes) == (5, 5 * 4 * N)


def test_slices_are_the_parts_of_the_first_axis(mesh):
    over = {axis: compiled(mesh, lambda x, axis=axis: lax.psum(x, axis), PartitionSpec(tuple(AXES))) for axis in AXES}
    assert one(over["data"], slices=2).slow
    assert not one(over["fsdp"], slices=2).slow
    assert not one(over["tensor"], slices=2).slow


def test_what_hosts_send_between_slices():
    """As a TPU's compiler writes it: of a permutation and a sum over two slices."""
    send = "  %s{n} = (f32[100]{{0}}, u32[], token[]) send(%p, %t), channel_id={n}, is_host_transfer=true, "
    send += 'frontend_attributes={{_xla_megascale_transfer_type="{kind}"}}\n'
    text = program(send.format(n=1, kind="ONE_TO_ONE") + send.format(n=2, kind="ALL_REDUCE"))
    found = {each.kind: each for each in read_program(text, AXES, 2).collectives}
    assert found["collective-permute"] == Collective("collective-permute", ("data",), 1, 400, True)
    assert found["all-reduce"] == Collective("all-reduce", ("data",), 1, 400, True)


LINE = "  %ar = f32[100]{{0}} all-reduce(%p), channel_id=1, replica_groups={groups}, use_global_device_ids=true\n"


def program(body: str) -> str:
    return f"ENTRY %main (p: f32[100]) -> f32[100] {{\n  %p = f32[100]{{0}} parameter(0)\n{body}}}\n"


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", ("tensor",)),
        ("{{0,2},{1,3},{4,6},{5,7}}", ("fsdp",)),
        ("{}", ("data", "fsdp", "tensor")),
        ("[4,2]<=[8]", ("tensor",)),
        ("[4,2]<=[2,4]T(1,0)", ("data",)),
        ("[2,4]<=[8]", ("fsdp", "tensor")),
        ("[2,4]<=[2,2,2]T(1,0,2)", ("data", "tensor")),
        ("mesh['axis_0'=2,'axis_1'=2,'axis_2'=2] {'axis_1'}", ("fsdp",)),
        ("mesh['a'=2,'b'=4] {'a'}", ("data",)),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", ("data",)),
        ("mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'a'}", ("fsdp", "tensor")),
        ("mesh['a'=4,'b'=2], device_ids=(7,6,5,4,3,2,1,0) {'b'}", ("?",)),
        ("something new", ("?",)),
    ],
)
def test_every_way_to_write_groups(groups, axes):
    assert one(program(LINE.format(groups=groups))).axes == axes


def test_a_loop_whose_length_only_its_condition_says():
    """As a TPU's compiler writes it."""
    text = """
%body (p: (s32[], f32[100])) -> (s32[], f32[100]) {
  %p = (s32[]{:T(128)}, f32[100]{0}) parameter(0)
  %x = f32[100]{0} get-tuple-element(%p), index=1
  %y = f32[100]{0:T(128)S(1)} negate(%x)
  ROOT %t = (s32[], f32[100]{0}) tuple(%i, %y)
}
%condition (p: (s32[], f32[100])) -> pred[] {
  %c = s32[]{:T(128)} constant(12), metadata={op_name="x"}
  ROOT %lt = pred[] compare(%i, %c), direction=LT
}
ENTRY %main (p: f32[100]) -> f32[100] {
  %p = f32[100]{0} parameter(0)
  ROOT %w = (s32[], /*index=1*/f32[100]{0}) while(%p), condition=%condition, body=%body
}
"""
    assert read_program(text, AXES).other_bytes == 12 * 400  # read; what is written stays in the chip's fast memory


def traffic(function, *arguments):
    return read_program(str(jax.jit(function).lower(*arguments).compile().as_text()), {"data": 1})


def test_what_passes_through_memory():
    x = jax.ShapeDtypeStruct((1 << 16,), jnp.float32)
    assert traffic(lambda x: x * 2 + 1, x).other_bytes == 2 * 4 * (1 << 16)
    a = jax.ShapeDtypeStruct((256, 256), jnp.float32)
    product = traffic(jnp.matmul, a, a)
    assert (product.product_bytes, product.other_bytes) == (3 * 4 * 256**2, 0)
    rows = traffic(lambda x: (x * 2).reshape(256, 256).sum(axis=1), x)
    assert sum(size for _, size in rows.kernels.values()) == rows.other_bytes
    assert set(rows.kernels) == {REDUCTIONS}


def test_a_slice_that_a_tpu_fetches_ahead_is_read_once():
    """Its start's type holds the whole operand, and its end's type the slice once more."""
    text = """ENTRY %main (x: f32[64,128]) -> f32[8,128] {
  %x = f32[64,128]{1,0:T(8,128)} parameter(0)
  %s = ((f32[64,128]{1,0:T(8,128)}), f32[8,128]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) slice-start(%x), slice={[0:8], [0:128]}
  ROOT %d = f32[8,128]{1,0:T(8,128)S(1)} slice-done(%s)
}
"""
    assert read_program(text, AXES).other_bytes == 4 * 8 * 128


def test_of_what_a_loop_stacks_and_reads_only_the_slice_of_each_round_counts():
    """Counted whole, 64 rounds over 64 rows would be 64 times too much."""
    rows = jax.ShapeDtypeStruct((64, 1 << 14), jnp.float32)

    def running(rows):
        return lax.scan(lambda carry, row: ((carry + row) * 0.5, carry * 3), jnp.zeros(1 << 14), rows)[1]

    whole = np.prod(rows.shape) * 4
    assert 2 * whole <= traffic(running, rows).other_bytes <= 10 * whole


def test_an_array_takes_whole_tiles_of_a_tpus_memory():
    """Heads of 64 channels lie in registers of 128, 197 tokens in rows of 8; another order fills others."""
    assert array_bytes("bf16[2,12,197,64]{3,2,1,0:T(8,128)(2,1)}") == [2 * 2 * 12 * 200 * 128]
    assert array_bytes("bf16[2,12,197,64]{2,3,1,0:T(8,128)(2,1)}") == [2 * 2 * 12 * 256 * 64]
    assert array_bytes("(f32[197]{0:T(256)}, f32[3,5]{1,0}, s32[])") == [4 * 256, 4 * 15, 4]
