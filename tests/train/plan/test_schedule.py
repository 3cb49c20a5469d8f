"""The compiled schedule of GPUs, read: kernels by class, and what collectives hide behind them. All counted by hand."""

import dataclasses

import pytest

from mmjax.train.plan.collectives import Collective
from mmjax.train.plan.gpus import cards
from mmjax.train.plan.kernels import ATTENTION, COPIES, ELEMENTWISE, PRODUCTS, REDUCTIONS, WRITES
from mmjax.train.plan.schedule import read_schedule
from tests.train.plan.gpu_program import PROGRAM

AXES = {"data": 2, "fsdp": 2, "tensor": 1}  # two hosts of two: `data` is between them
# Round figures: a byte takes a nanosecond, a product's FLOP a picosecond in 16 bits and two in fp32.
CARD = dataclasses.replace(
    cards()["h100"],
    bandwidth=1e9,
    bf16=1e12,
    tf32=5e11,
    nvlink=1e9,
    network=1e8,
    attained_products=1,
    attained_memory=1,
    least_kernel=0,
    least_collective=0,
)
ROW, SQUARE = 128 * 64 * 2, 64 * 64 * 2  # bytes of the activations and of a layer's weights


@pytest.fixture(scope="module")
def schedule():
    return read_schedule(PROGRAM, AXES, CARD, hosts=2)


@pytest.mark.parametrize(
    ("kind", "count", "size", "flops"),
    [
        # in the loop: x, weights and y; after it cuBLAS's [128, 64] x [64, 32] in fp32
        (PRODUCTS, 3 + 1, 3 * (2 * ROW + SQUARE) + 4 * (128 * 64 + 64 * 32 + 128 * 32),
         3 * 2 * 128 * 64 * 64 + 2 * 128 * 64 * 32),
        # q, k, v and the output; the statistics of each row
        (ATTENTION, 1, 4 * 2 * 16 * 4 * 64 * 2 + 2 * 4 * 16 * 4, 4 * 2 * 4 * 16 * 16 * 64),
        (REDUCTIONS, 1, ROW + 4 * 128, 0),
        # the weights of each round, the transposition, and the padding, which computes nothing
        (COPIES, 3 + 2, 3 * (2 * SQUARE + 4) + 2 * ROW + ROW + 130 * 64 * 2, 0),
        (WRITES, 3, 3 * (2 * ROW + 4), 0),  # of the stack only what is written
        (ELEMENTWISE, 1, 2 * 4 * 128, 0),
    ],
)  # fmt: skip
def test_kernels_of_each_class_their_bytes_and_flops(schedule, kind, count, size, flops):
    (found,) = [each for each in schedule.kernels if each.kind == kind]
    assert (found.count, found.bytes, found.flops) == (count, size, flops)


def test_a_kernel_takes_what_takes_longer(schedule):
    """Bytes here; with a memory that costs nothing the products, in fp32 at half the rate."""
    (products,) = [each for each in schedule.kernels if each.kind == PRODUCTS]
    assert products.seconds == pytest.approx(products.bytes * 1e-9)
    fast = read_schedule(PROGRAM, AXES, dataclasses.replace(CARD, bandwidth=1e18), hosts=2)
    assert fast.of(PRODUCTS) == pytest.approx((3 * 2 * 128 * 64 * 64 + 2 * 2 * 128 * 64 * 32) * 1e-12, rel=1e-3)


def test_nothing_is_shorter_than_what_a_start_takes(schedule):
    slow = read_schedule(PROGRAM, AXES, dataclasses.replace(CARD, least_kernel=1.0, least_collective=7.0), hosts=2)
    kernels = sum(each.count for each in schedule.kernels)
    assert slow.products + slow.memory == kernels == 15
    # each round's gathering has its product beside it; the last has nothing
    assert slow.exposed == 3 * (7 - 1) + 7


def test_of_a_conditional_the_longest_branch_counts():
    text = PROGRAM.replace(
        "%rows = f32[128]{0} fusion(%last), kind=kInput, calls=%reduced",
        "%rows = f32[128]{0} conditional(%begin, %last, %last), branch_computations={%short, %long}",
    ).replace("ENTRY", BRANCHES + "ENTRY")
    found = {each.kind: each for each in read_schedule(text, AXES, CARD, 2).kernels}
    assert (found[REDUCTIONS].count, found[REDUCTIONS].bytes) == (1, ROW + 4 * 128)
    assert (found[ELEMENTWISE].count, found[ELEMENTWISE].bytes) == (1, 2 * 4 * 128)  # that of before: not the short one


BRANCHES = """\
%short (b0: bf16[128,64]) -> f32[128] {
  %b0 = bf16[128,64]{1,0} parameter(0)
  ROOT %made = f32[128]{0} exponential(%nothing)
}

%long (b1: bf16[128,64]) -> f32[128] {
  %b1 = bf16[128,64]{1,0} parameter(0)
  ROOT %rows.1 = f32[128]{0} fusion(%b1), kind=kInput, calls=%reduced
}

"""


def test_what_of_collectives_is_hidden_and_what_exposed(schedule):
    """Gathered: half of 16,384 bytes over NVLink, 8.2 us, beside a product of 41 us. Reduced: 512 bytes, of which each
    of two sends as many, over the network's tenth of the speed, with nothing beside."""
    gathered, reduced = schedule.collectives
    assert gathered == Collective("all-gather", ("fsdp",), 3, 3 * ROW / 2, False, gathered.seconds, gathered.exposed)
    assert (gathered.seconds, gathered.exposed) == (pytest.approx(3 * ROW / 2 * 1e-9), 0)
    assert reduced == Collective("all-reduce", ("data",), 1, 512, True, reduced.seconds, reduced.exposed)
    assert (reduced.seconds, reduced.exposed) == (pytest.approx(512e-8), pytest.approx(512e-8))
    assert schedule.exposed == pytest.approx(512e-8)
    assert schedule.seconds == pytest.approx(schedule.products + schedule.memory + schedule.exposed)


def test_a_network_that_is_slow_is_exposed_for_what_the_product_leaves(schedule):
    slow = read_schedule(PROGRAM, AXES, dataclasses.replace(CARD, nvlink=1e8), hosts=2)
    gathered = next(each for each in slow.collectives if each.kind == "all-gather")
    product = (2 * ROW + SQUARE) * 1e-9  # runs beside each
    assert gathered.exposed == pytest.approx(3 * (ROW / 2 * 1e-8 - product))


def test_one_that_is_not_asynchronous_is_exposed_whole():
    text = PROGRAM.replace(
        "((bf16[64,64]{1,0}), (bf16[128,64]{1,0})) all-gather-start(", "bf16[128,64]{1,0} all-gather("
    )
    text = text.replace("  %gathered = (bf16[128,64]{1,0}) all-gather-done(%gather)\n", "")
    gathered = next(each for each in read_schedule(text, AXES, CARD, 2).collectives if each.kind == "all-gather")
    assert gathered.exposed == pytest.approx(gathered.seconds) == pytest.approx(3 * ROW / 2 * 1e-9)


def test_within_a_host_nothing_goes_over_the_network():
    (reduced,) = [each for each in read_schedule(PROGRAM, AXES, CARD).collectives if each.kind == "all-reduce"]
    assert (reduced.slow, reduced.seconds) == (False, pytest.approx(512e-9))


def test_a_ring_over_hosts_is_as_fast_as_its_slowest_pair():
    """Three of four pairs are within a host; one card's adapter carries the fourth's whole row."""
    text = PROGRAM.replace("((f32[128]{0}), f32[128]{0}) all-reduce", "(f32[128]{0}, f32[128]{0}) collective-permute")
    text = text.replace(" all-reduce-done", " collective-permute-done")
    text = text.replace("replica_groups=[2,2]<=[2,2]T(1,0)", "source_target_pairs={{0,1},{1,2},{2,3},{3,0}}")
    (ring,) = [each for each in read_schedule(text, AXES, CARD, 2).collectives if each.kind == "collective-permute"]
    assert (ring.axes, ring.bytes, ring.slow) == (("data", "fsdp"), 512, True)
    assert ring.seconds == pytest.approx(512e-8)


def test_the_adapters_of_all_of_a_hosts_cards_share_what_leaves_it():
    """Groups of four over both hosts: two cards of each take part."""
    text = PROGRAM.replace("replica_groups=[2,2]<=[2,2]T(1,0)", "replica_groups=[1,4]<=[4]")
    (reduced,) = [each for each in read_schedule(text, AXES, CARD, 2).collectives if each.kind == "all-reduce"]
    assert (reduced.axes, reduced.bytes) == (("data", "fsdp"), 512 * 2 * 3 / 4)
    assert reduced.seconds == pytest.approx(reduced.bytes / 2e8)
