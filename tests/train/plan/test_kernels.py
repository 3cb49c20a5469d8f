"""Kernels one by one: products that libraries do, convolutions, attention, and the classes of what has no products."""

import pytest

from mmjax.train.plan.hlo import parse_program
from mmjax.train.plan.kernels import ATTENTION, ELEMENTWISE, OTHER, PRODUCTS, Kernel, kernel

HEAD = "ENTRY %main (x: f32[4,8,8,3]) -> f32[4,8,8,16] {\n"


def one_or_none(*lines: str) -> Kernel | None:
    """The kernel of the last line."""
    computations, entry = parse_program(HEAD + "".join(f"  {line}\n" for line in lines) + "}\n")
    return kernel(list(computations[entry].values())[-1], computations[entry], computations)


def one(*lines: str) -> Kernel:
    found = one_or_none(*lines)
    assert found is not None
    return found


PICTURES, WEIGHTS = "%x = f32[4,8,8,3]{3,2,1,0} parameter(0)", "%w = f32[3,3,3,16]{3,2,1,0} parameter(1)"
MAPS = "%y = f32[4,8,8,16]{3,2,1,0} parameter(2)"
CONVOLVED = 2 * (4 * 8 * 8 * 16) * (3 * 3 * 3)  # 256 x 16 outputs, each a sum of 27


@pytest.mark.parametrize(
    ("lines", "flops"),
    [
        ((PICTURES, WEIGHTS, "%c = f32[4,8,8,16]{3,2,1,0} convolution(%x, %w), window={size=3x3 pad=1_1x1_1}, "
          "dim_labels=b01f_01io->b01f"), CONVOLVED),
        ((PICTURES, WEIGHTS, "%c = (f32[4,8,8,16]{3,2,1,0}, u8[0]{0}) custom-call(%x, %w), dim_labels=b01f_01io->b01f, "
          'custom_call_target="__cudnn$convForward"'), CONVOLVED),
        ((MAPS, WEIGHTS, "%c = (f32[4,8,8,3]{3,2,1,0}, u8[0]{0}) custom-call(%y, %w), dim_labels=b01f_01io->b01f, "
          'custom_call_target="__cudnn$convBackwardInput"'), CONVOLVED),
        ((PICTURES, MAPS, "%c = (f32[3,3,3,16]{3,2,1,0}, u8[0]{0}) custom-call(%x, %y), dim_labels=b01f_01io->b01f, "
          'custom_call_target="__cudnn$convBackwardFilter"'), CONVOLVED),
        (("%a = bf16[5,8,16]{2,1,0} parameter(0)", "%b = bf16[5,16,32]{2,1,0} parameter(1)",
          "%d = bf16[5,8,32]{2,1,0} dot(%a, %b), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, "
          "rhs_contracting_dims={1}"), 2 * 5 * 8 * 32 * 16),
    ],
)  # fmt: skip
def test_products_and_convolutions(lines, flops):
    found = one(*lines)
    assert (found.kind, found.flops) == (PRODUCTS, flops)


@pytest.mark.parametrize(("said", "exact"), [("", False), (", operand_precision={highest,highest}", True)])
def test_products_in_fp32_are_exact_only_where_it_is_said(said, exact):
    (product,) = one(
        "%a = f32[8,16]{1,0} parameter(0)",
        "%b = f32[16,4]{1,0} parameter(1)",
        f"%d = f32[8,4]{{1,0}} dot(%a, %b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}{said}",
    ).products
    assert product == (2 * 8 * 4 * 16, "f32", exact)


def test_the_backward_pass_of_an_attention_has_five_products():
    logits = '{"intermediate_tensor_shape": {"element_type": "BF16", "dimensions": ["2", "4", "16", "20"]}}'
    found = one(
        "%q = bf16[2,16,4,64]{3,2,1,0} parameter(0)",
        "%h = (bf16[2,4,16,64]{3,1,2,0}, u8[0]{0}) custom-call(%q, %q, %q), "
        f'custom_call_target="__cudnn$fmhaSoftmaxBackward", backend_config={{"cudnn_fmha_backend_config": {logits}}}',
    )
    assert (found.kind, found.flops) == (ATTENTION, 10 * 2 * 4 * 16 * 20 * 64)


def test_a_tpus_kernel_by_pallas_is_attention():
    found = one(
        "%q = bf16[2,197,768]{2,1,0:T(8,128)(2,1)} parameter(0)",
        '%h = bf16[2,197,768]{2,1,0:T(8,128)(2,1)} custom-call(%q, %q, %q), custom_call_target="tpu_custom_call"',
    )
    assert (found.kind, found.bytes) == (ATTENTION, 4 * 2 * 2 * 200 * 768)


def test_what_is_no_kernel():
    x = "%x = f32[8]{0} parameter(0)"
    assert one_or_none(x) is None
    assert one_or_none(x, "%b = f32[2,4]{1,0} bitcast(%x)") is None
    assert one_or_none(x, "%d = f32[8]{0} fusion-done(%x)") is None


def test_a_lookup_is_neither_arithmetic_nor_a_copy():
    table, ids = "%t = f32[100,8]{1,0} parameter(0)", "%i = s32[4]{0} parameter(1)"
    assert one(table, ids, "%g = f32[4,8]{1,0} gather(%t, %i), offset_dims={1}").kind == OTHER
    assert one(table, "%e = f32[100,8]{1,0} exponential(%t)").kind == ELEMENTWISE
