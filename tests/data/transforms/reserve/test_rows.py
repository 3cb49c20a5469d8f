"""Rows of parts: how they lose tokens, and where their arrays' numbers stand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data.transforms.reserve.rows import POINTERS, RowPart, fitted, laid_out


@st.composite
def rows(draw) -> list[RowPart]:
    """Texts, sounds and masks; no two tokens are the same."""
    kinds = draw(st.lists(st.tuples(st.sampled_from(["text", "sound", "mask"]), st.integers(1, 7)), max_size=12))
    parts, begin = [], 0
    for kind, length in kinds:
        length = 1 if kind == "mask" else length
        ids = list(range(begin, begin + length))
        parts.append(RowPart(ids, 0, 0, audio=begin if kind == "sound" else -1, kept=kind == "mask"))
        begin += length
    return parts


def count(parts) -> int:
    return sum(len(part.ids) for part in parts)


@settings(deadline=None, max_examples=300)
@given(rows(), st.integers(0, 40), st.integers(0, 3))
def test_a_row_has_room_with_all_masks_and_what_is_left_out_is_farthest(parts, more, seed):
    room = sum(part.kept for part in parts) + more
    found = fitted(parts, room, np.random.default_rng(seed))
    if count(parts) <= room:
        assert found == parts
        return
    ids = [id for part in found for id in part.ids]
    assert len(ids) <= room
    assert ids == sorted(ids)
    assert {id for part in parts if part.kept for id in part.ids} <= set(ids)
    spare = room - len(ids)
    cut = [part for part in parts if 0 < len(set(part.ids) & set(ids)) < len(part.ids)]
    assert all(not part.whole for part in cut)
    held = [place for place, part in enumerate(parts) if part.kept]
    first, last = (held[0], held[-1]) if held else (len(parts), len(parts))
    middle = parts[first : last + 1]
    if count(middle) > room:  # whole parts between the masks, and none that is left out would have room
        assert not cut
        assert {part.ids[0] for part in found} <= {part.ids[0] for part in middle}
        assert all(len(part.ids) > spare for part in middle if part not in found)
        return
    # All between the masks is there, and the rest is what lies next to it.
    kept = set(ids)
    assert all(kept.issuperset(part.ids) for part in middle)
    total = count(parts)
    assert ids == list(range(ids[0], ids[-1] + 1)) if ids else True
    begin, end = middle[0].ids[0] if middle else total, middle[-1].ids[-1] + 1 if middle else total
    left, right = (begin - ids[0], ids[-1] + 1 - end) if ids else (0, 0)
    if all(part.audio < 0 for part in parts):
        assert len(ids) == room
        # The end that lost more is as long as the other, up to one token.
        if left < begin:
            assert left >= right - 1 or right == total - end
        if right < total - end:
            assert right >= left - 1 or left == begin


def test_a_sound_at_an_end_goes_as_a_whole():
    text, mask = RowPart([1, 2, 3], 0, 0), RowPart([4], 0, 0, kept=True)
    sound = RowPart([5, 5, 5], 0, 0, audio=0)
    rng = np.random.default_rng(0)
    assert fitted([text, text, mask, sound], 7, rng) == [text, mask, sound]
    assert fitted([text, mask, sound], 5, rng) == [text, mask]  # the room of a sound that goes isn't lost
    assert fitted([mask, text], 3, rng) == [mask, text._replace(ids=[1, 2])]
    assert fitted([text, mask], 3, rng) == [text._replace(ids=[2, 3]), mask]


def test_what_is_left_out_between_masks_is_drawn():
    mask = RowPart([0], 0, 0, kept=True)
    parts = [mask, RowPart([1, 1], 0, 0), RowPart([2, 2], 1, 0), RowPart([3, 3, 3], 2, 0), mask]
    found = {tuple(part.ids[0] for part in fitted(parts, 6, np.random.default_rng(seed))) for seed in range(40)}
    assert found == {(0, 1, 2, 0), (0, 3, 0)}


def test_arrays_have_each_tokens_numbers():
    one = [RowPart([7, 8], 1, 2, text=3), RowPart([5, 5, 5], 2, 4, audio=12)]
    two = [RowPart([9], 3, 0, target=6, kept=True), RowPart([6], 3, 1, frame=3)]
    found = laid_out([one, [], two], 6, pad=99)
    assert {array.dtype for array in found.values()} == {np.dtype("int32")}
    assert list(found) == ["", *POINTERS]
    assert found[""].tolist() == [[7, 8, 5, 5, 5, 99], [99] * 6, [9, 6, 99, 99, 99, 99]]
    assert found["segments"].tolist() == [[1, 1, 2, 2, 2, 0], [0] * 6, [3, 3, 0, 0, 0, 0]]
    assert found["blocks"].tolist() == [[2, 2, 4, 4, 4, -1], [-1] * 6, [0, 1, -1, -1, -1, -1]]
    assert found["audio_ptr"].tolist() == [[-1, -1, 12, 13, 14, -1], [-1] * 6, [-1] * 6]
    assert found["text_ptr"].tolist() == [[3, 3, -1, -1, -1, -1], [-1] * 6, [-1] * 6]
    assert found["target_ptr"].tolist() == [[-1] * 6, [-1] * 6, [6, -1, -1, -1, -1, -1]]
    assert found["frame_ptr"].tolist() == [[-1] * 6, [-1] * 6, [-1, 3, -1, -1, -1, -1]]


@pytest.mark.parametrize("count", [1, 3])
def test_rows_without_parts_are_padding(count):
    found = laid_out([[]] * count, 4, pad=0)
    assert found[""].tolist() == [[0] * 4] * count
    assert (found["blocks"] == -1).all()
