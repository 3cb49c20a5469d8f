import numpy as np
import pytest

from mmjax.data.datasets.emoji_stories.drawing import TONES, backdrop, painted_frames
from mmjax.data.datasets.emoji_stories.grammar import Plot, StoryEvent, middle
from tests.data.datasets.emoji_stories.made import GOAT, MET, PEAR, ROCKET

LENGTH = 30


@pytest.fixture(scope="module")
def frames():
    return painted_frames(MET, [GOAT, ROCKET], [LENGTH] * len(MET.events), 4)


def inked(frame, tone=4):
    """The pixels that differ from the background."""
    return (np.abs(frame.astype(int) - backdrop(tone)) > 12).any(-1)


def box(ink):
    """Left, top, right, bottom."""
    rows, columns = np.nonzero(ink.any(1))[0], np.nonzero(ink.any(0))[0]
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def test_frames_have_the_size_and_number_that_are_told(frames):
    assert frames.shape == (12 * LENGTH, 64, 96, 3)
    assert frames.dtype == np.uint8


def test_at_the_end_of_each_event_all_are_where_the_plot_says_and_nothing_is_elsewhere(frames):
    for place, stage in enumerate(MET.stages()[1:]):
        ink = inked(frames[(place + 1) * LENGTH - 1])
        elsewhere = ink.copy()
        for role, cell in stage.cells.items():
            x, y = middle(cell)
            half = MET.side(role, stage.levels[role]) / 2
            there = np.s_[int(y - half) - 1 : int(y + half) + 2, int(x - half) - 1 : int(x + half) + 2]
            assert ink[there].mean() > 0.3
            elsewhere[there] = False
        assert not elsewhere.any()


def test_a_drawing_fills_its_size(frames):
    """The margins of OpenMoji's drawings are cut off."""
    left, top, right, bottom = box(inked(frames[LENGTH - 1]))
    assert max(right - left, bottom - top) == pytest.approx(22, abs=1)
    assert (left + right) / 2 == pytest.approx(16, abs=1)
    assert (top + bottom) / 2 == pytest.approx(16, abs=1)


def test_who_grows_and_who_shrinks_is_seen_to(frames):
    def size(frame, columns):
        left, top, right, bottom = box(inked(frame)[:, columns])
        return max(right - left, bottom - top)

    kinds = [event.kind for event in MET.events]
    grow, shrink = kinds.index("grow"), kinds.index("shrink")
    right, left = np.s_[60:], np.s_[:36]
    assert size(frames[(grow + 1) * LENGTH - 1], right) == size(frames[grow * LENGTH], right) + 6
    assert size(frames[(shrink + 1) * LENGTH - 1], left) == pytest.approx(22 * 0.8, abs=1)


def test_one_appears_little_by_little(frames):
    assert not inked(frames[0]).any()
    strength = [np.abs(frames[n].astype(int) - backdrop(4)).sum() for n in (0, 4, 8, 14)]
    assert strength == sorted(set(strength))
    np.testing.assert_array_equal(frames[14], frames[LENGTH - 1])


def test_one_that_turns_is_upside_down_in_the_middle():
    plot = Plot((StoryEvent("appear", 0, cell=(0, 1)), StoryEvent("turn", 0, cell=(0, 1))), (24,))
    frames = painted_frames(plot, [PEAR], [LENGTH, LENGTH], 4).astype(int)
    cell = np.s_[3:29, 35:61]
    before = frames[LENGTH - 1][cell]
    middle_of_turn = frames[LENGTH + 12][cell]  # at four tenths of the event half of the turn is done
    assert np.abs(middle_of_turn - before[::-1, ::-1]).mean() < 0.3 * np.abs(middle_of_turn - before).mean()
    np.testing.assert_array_equal(frames[-1][cell], before)


def test_who_leaves_is_cut_by_the_edge_and_then_gone(frames):
    last = len(MET.events) - 1
    shown = [inked(frames[n]).sum() for n in range(last * LENGTH, (last + 1) * LENGTH)]
    assert shown[0] > 0.3 * 17 * 17
    assert any(0 < ink < 0.7 * shown[0] for ink in shown)
    assert shown[-1] == 0


def test_backgrounds_are_light_and_differ():
    pictures = [backdrop(tone) for tone in range(len(TONES))]
    assert len({picture.tobytes() for picture in pictures}) == len(TONES)
    for picture in pictures:
        assert picture.shape == (64, 96, 3)
        assert picture.min() > 220
        assert picture[-1].sum() > picture[0].sum()


def test_colours_over_a_background_are_mixed_by_their_opacity():
    """An independent way: the drawing over the background by Pillow, in the drawing's own size."""
    from PIL import Image

    from mmjax.data.datasets.asked_emoji.drawings import drawing

    plot = Plot((StoryEvent("appear", 0, cell=(0, 1)),), (24,))
    frame = painted_frames(plot, [ROCKET], [LENGTH], 1)[-1]
    whole = drawing(ROCKET, 96)
    left, top, right, bottom = whole.getchannel("A").getbbox() or (0, 0, 96, 96)
    side = max(right - left, bottom - top)
    x, y = left - (side - right + left) // 2, top - (side - bottom + top) // 2
    small = whole.crop((x, y, x + side, y + side)).resize((24, 24), Image.Resampling.LANCZOS)
    expected = Image.fromarray(backdrop(1)).convert("RGBA")
    expected.alpha_composite(small, (48 - 12, 16 - 12))
    wanted = np.asarray(expected.convert("RGB")).astype(int)
    assert np.abs(frame - wanted).mean() < 0.5
    assert np.abs(frame - wanted).max() < 40
