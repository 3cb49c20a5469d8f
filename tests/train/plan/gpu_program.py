"""A program as CUDA's compiler writes one, made by hand and small enough to be counted by hand."""

# A loop of 3 rounds: reads a row of stacked weights, multiplies by it, and writes the result into a stack; while it
# multiplies, weights are gathered from the card beside. After the loop a sum, a transposition, an attention, a product
# by cuBLAS in fp32, and an all-reduce between hosts that nothing runs beside.
PROGRAM = """\
HloModule jit_step, is_scheduled=true

%slice_of (p0: bf16[3,64,64], p1: s32[]) -> bf16[64,64] {
  %p0 = bf16[3,64,64]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %part = bf16[1,64,64]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,64,64}
  ROOT %row = bf16[64,64]{1,0} bitcast(%part)
}

%nested (q0: bf16[128,64], q1: bf16[64,64]) -> bf16[128,64] {
  %q0 = bf16[128,64]{1,0} parameter(0)
  %q1 = bf16[64,64]{1,0} parameter(1)
  ROOT %dot.1 = bf16[128,64]{1,0} dot(%q0, %q1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%multiplied (m0: bf16[128,64], m1: bf16[64,64]) -> bf16[128,64] {
  %m0 = bf16[128,64]{1,0} parameter(0)
  %m1 = bf16[64,64]{1,0} parameter(1)
  %product = bf16[128,64]{1,0} fusion(%m0, %m1), kind=kCustom, calls=%nested
  ROOT %bent = bf16[128,64]{1,0} tanh(%product)
}

%stacked (s0: bf16[3,128,64], s1: s32[], s2: bf16[128,64]) -> bf16[3,128,64] {
  %s0 = bf16[3,128,64]{2,1,0} parameter(0)
  %s1 = s32[] parameter(1)
  %s2 = bf16[128,64]{1,0} parameter(2)
  %zero.1 = s32[] constant(0)
  %shaped = bf16[1,128,64]{2,1,0} bitcast(%s2)
  ROOT %written = bf16[3,128,64]{2,1,0} dynamic-update-slice(%s0, %shaped, %s1, %zero.1, %zero.1)
}

%body (carried: (s32[], bf16[128,64], bf16[3,64,64], bf16[3,128,64])) -> (s32[], bf16[128,64]) {
  %carried = (s32[], bf16[128,64]{1,0}, bf16[3,64,64]{2,1,0}, bf16[3,128,64]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%carried), index=0
  %x = bf16[128,64]{1,0} get-tuple-element(%carried), index=1
  %weights = bf16[3,64,64]{2,1,0} get-tuple-element(%carried), index=2
  %stack = bf16[3,128,64]{2,1,0} get-tuple-element(%carried), index=3
  %row.1 = bf16[64,64]{1,0} fusion(%weights, %i), kind=kLoop, calls=%slice_of
  %gather = ((bf16[64,64]{1,0}), (bf16[128,64]{1,0})) all-gather-start(%row.1), channel_id=1, \
replica_groups=[2,2]<=[4], dimensions={0}, use_global_device_ids=true
  %y = bf16[128,64]{1,0} fusion(%x, %row.1), kind=kCustom, calls=%multiplied
  %gathered = (bf16[128,64]{1,0}) all-gather-done(%gather)
  %write = ((bf16[3,128,64]{2,1,0}, s32[], bf16[128,64]{1,0}), bf16[3,128,64]{2,1,0}, u32[]) \
fusion-start(%stack, %i, %y), kind=kLoop, calls=%stacked
  %after = bf16[3,128,64]{2,1,0} fusion-done(%write)
  ROOT %next = (s32[], bf16[128,64]{1,0}, bf16[3,64,64]{2,1,0}, bf16[3,128,64]{2,1,0}) tuple(%i, %y, %weights, %after)
}

%condition (c: (s32[], bf16[128,64], bf16[3,64,64], bf16[3,128,64])) -> pred[] {
  %c = (s32[], bf16[128,64]{1,0}, bf16[3,64,64]{2,1,0}, bf16[3,128,64]{2,1,0}) parameter(0)
  ROOT %more = pred[] compare(%c, %c), direction=LT
}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%reduced (r0: bf16[128,64]) -> f32[128] {
  %r0 = bf16[128,64]{1,0} parameter(0)
  %wide = f32[128,64]{1,0} convert(%r0)
  %none = f32[] constant(0)
  ROOT %sums = f32[128]{0} reduce(%wide, %none), dimensions={1}, to_apply=%add
}

%turned (t0: bf16[128,64]) -> bf16[64,128] {
  %t0 = bf16[128,64]{1,0} parameter(0)
  ROOT %turn = bf16[64,128]{1,0} transpose(%t0), dimensions={1,0}
}

%padded (d0: bf16[128,64]) -> bf16[130,64] {
  %d0 = bf16[128,64]{1,0} parameter(0)
  %nought = bf16[] constant(0)
  ROOT %pad = bf16[130,64]{1,0} pad(%d0, %nought), padding=0_2x0_0
}

%doubled (e0: f32[128]) -> f32[128] {
  %e0 = f32[128]{0} parameter(0)
  ROOT %twice = f32[128]{0} add(%e0, %e0)
}

ENTRY %main (x0: bf16[128,64], w0: bf16[3,64,64], k0: bf16[3,128,64], v: f32[64,32]) -> f32[128] {
  %x0 = bf16[128,64]{1,0} parameter(0)
  %w0 = bf16[3,64,64]{2,1,0} parameter(1)
  %k0 = bf16[3,128,64]{2,1,0} parameter(2)
  %v = f32[64,32]{1,0} parameter(3)
  %begin = s32[] constant(0)
  %in = (s32[], bf16[128,64]{1,0}, bf16[3,64,64]{2,1,0}, bf16[3,128,64]{2,1,0}) tuple(%begin, %x0, %w0, %k0)
  %loop = (s32[], bf16[128,64]{1,0}, bf16[3,64,64]{2,1,0}, bf16[3,128,64]{2,1,0}) while(%in), condition=%condition, \
body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %last = bf16[128,64]{1,0} get-tuple-element(%loop), index=1
  %rows = f32[128]{0} fusion(%last), kind=kInput, calls=%reduced
  %across = bf16[64,128]{1,0} fusion(%last), kind=kInput, calls=%turned
  %even = bf16[130,64]{1,0} fusion(%last), kind=kLoop, calls=%padded
  %heads = (bf16[2,4,16,64]{3,1,2,0}, f32[2,4,16]{2,1,0}, u8[0]{0}) custom-call(%q, %k, %value), \
custom_call_target="__cudnn$fmhaSoftmax", backend_config={"cudnn_fmha_backend_config": {"fmha_scale": 0.125, \
"intermediate_tensor_shape": {"element_type": "BF16", "dimensions": ["2", "4", "16", "16"], "tuple_shapes": []}}}
  %q = bf16[2,16,4,64]{3,2,1,0} parameter(4)
  %k = bf16[2,16,4,64]{3,2,1,0} parameter(5)
  %value = bf16[2,16,4,64]{3,2,1,0} parameter(6)
  %thirds = (f32[128,32]{1,0}, s8[0]{0}) custom-call(%wide.1, %v), custom_call_target="__cublas$lt$matmul", \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],\
"rhs_contracting_dimensions":["0"],"lhs_batch_dimensions":[],"rhs_batch_dimensions":[]},\
"precision_config":{"operand_precision":["DEFAULT","DEFAULT"],"algorithm":"ALG_UNSET"}}}
  %wide.1 = f32[128,64]{1,0} parameter(7)
  %total = ((f32[128]{0}), f32[128]{0}) all-reduce-start(%rows), channel_id=2, replica_groups=[2,2]<=[2,2]T(1,0), \
use_global_device_ids=true, to_apply=%add
  %reduced.1 = f32[128]{0} all-reduce-done(%total)
  ROOT %out = f32[128]{0} fusion(%reduced.1), kind=kLoop, calls=%doubled
}
"""

# Of a device: three products in bf16, cuBLAS's in fp32, and both of the attention's.
PRODUCT_FLOPS = 3 * 2 * 128 * 64 * 64 + 2 * 128 * 64 * 32 + 4 * 2 * 4 * 16 * 16 * 64
