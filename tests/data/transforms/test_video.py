"""Frames of videos: at their times, cropped alike, from files that are never read whole, the same at every resume."""

import copy
import io
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from PIL import Image

from mmjax.data import (
    BadExample,
    DecodeVideo,
    EachFrame,
    Mixture,
    RandomAffine,
    RandomFlip,
    Resize,
    VideoFolder,
    VideoInput,
)
from mmjax.data.chains import Chains, chain_specs, evaluation
from mmjax.data.paths import File
from mmjax.data.pipeline import batches
from mmjax.data.transforms.clip import Clip as Part
from mmjax.errors import UserError
from tests.data.decoding.clips import Clip, number_of

FRAMES, RATE = 60, 25  # of the video, 2.4 seconds


@pytest.fixture(scope="module")
def content() -> bytes:
    return Clip(frames=FRAMES).made()


@pytest.fixture(scope="module")
def path(content: bytes, tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("videos") / "clip.mp4"
    file.write_bytes(content)
    return str(file)


def numbers(value: Any) -> list[int]:
    return [number_of(frame) for frame in value.values[value.mask]]


def test_in_evaluation_frames_are_those_at_the_middles_of_equal_parts(content: bytes) -> None:
    middles = (np.arange(6) + 0.5) * FRAMES / 6  # in frames; frame i is shown from i to i + 1, and lies at i
    assert numbers(DecodeVideo(6)(content, None)) == [int(middle) for middle in middles]
    part = Part(content, 0.8, 1.6)  # frames 20 to 40
    assert numbers(DecodeVideo(4)(part, None)) == [22, 27, 32, 37]  # of 22.5, ... the earlier is taken


def test_in_training_each_is_anywhere_within_its_part(content: bytes) -> None:
    seen = [numbers(DecodeVideo(6)(content, np.random.default_rng(seed))) for seed in range(30)]
    for part in range(6):
        found = {one[part] for one in seen}
        assert found <= set(range(10 * part, 10 * part + 11))
        assert len(found) > 6
    assert numbers(DecodeVideo(6)(content, np.random.default_rng(3))) == seen[3]


def test_without_jitter_frames_are_those_at_the_middles_in_training_too(content: bytes) -> None:
    rng = np.random.default_rng(0)
    still: Any = DecodeVideo(6, jitter=False)
    assert numbers(still(content, rng)) == numbers(still(content, None)) == numbers(DecodeVideo(6)(content, None))
    given = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 3), np.uint8)
    assert DecodeVideo(5, jitter=False)(given, rng).values[:, 0, 0, 0].tolist() == [2, 6, 10, 14, 18]
    assert rng.random() == np.random.default_rng(0).random()  # nothing is drawn


def test_by_a_rate_frames_are_equally_far_apart_and_a_short_video_is_padded(content: bytes) -> None:
    value = DecodeVideo(5, rate=5)(content, None)
    assert numbers(value) == [0, 5, 10, 15, 20]
    value = DecodeVideo(16, rate=5)(content, None)  # 2.4 seconds have twelve
    assert value.mask.tolist() == [True] * 12 + [False] * 4
    assert numbers(value) == list(range(0, 60, 5))
    assert not value.values[12:].any()
    assert DecodeVideo(4, rate=0.1)(content, None).mask.tolist() == [True, False, False, False]
    assert numbers(DecodeVideo(3, rate=12.5)(Part(content, 1.0, 2.0), None)) == [25, 27, 29]


def test_frames_may_be_given_as_an_array_or_as_pictures() -> None:
    given = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 3), np.uint8)
    assert DecodeVideo(5)(given, None).values[:, 0, 0, 0].tolist() == [2, 6, 10, 14, 18]
    assert DecodeVideo(5, rate=1)(given, None).values[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    short = DecodeVideo(5)(given[:3], None)
    assert short.mask.tolist() == [True] * 3 + [False] * 2
    assert short.values[:3].tolist() == given[:3].tolist()
    pictures = [encoded(frame) for frame in given]
    np.testing.assert_array_equal(DecodeVideo(5)(pictures, None).values, DecodeVideo(5)(given, None).values)
    with pytest.raises(BadExample, match=r"sizes \[\(4, 6, 3\), \(5, 6, 3\)\]: they must have one"):
        DecodeVideo(2)([given[0], np.zeros((5, 6, 3), np.uint8)], None)
    with pytest.raises(BadExample, match="no frames"):
        DecodeVideo(2)([], None)


def encoded(frame: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "PNG")
    return stream.getvalue()


def test_each_frame_is_cropped_and_turned_alike() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    given = DecodeVideo(4)(np.stack([picture] * 3), None)
    steps = (Resize(16), RandomAffine(translate=0.3), RandomFlip())
    drawn = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        alone = copy.deepcopy(rng)
        value = EachFrame(steps)(given, rng)
        expected = picture
        for step in steps:
            expected = step(expected, alone)
        assert value.mask.tolist() == [True, True, True, False]
        for frame in value.values[:3]:
            np.testing.assert_array_equal(frame, expected)
        assert not value.values[3].any()
        drawn.append(value.values[0].tobytes())
    assert len(set(drawn)) == 8


def test_what_a_chain_gives_is_known_before_it_is_run() -> None:
    (spec,) = chain_specs({"video": (DecodeVideo(4), EachFrame((Resize(16),)))}).values()
    assert (spec.shape, spec.dtype, spec.masked, spec.kind) == ((4, 16, 16, 3), "uint8", True, VideoInput)
    with pytest.raises(UserError, match="has no fixed shape"):
        chain_specs({"video": (DecodeVideo(4),)})
    with pytest.raises(UserError, match=r"EachFrame\(...\) follows frames"):
        chain_specs({"video": (EachFrame((Resize(16),)),)})
    for name in ("frames", "rate", "short_side", "most_pixels"):
        with pytest.raises(UserError, match=rf"DecodeVideo\({name}=0\) must be above 0"):
            DecodeVideo(**cast(Any, {"frames": 4, name: 0}))


def test_a_file_is_opened_by_its_path_and_never_read_whole(path: str, content: bytes, monkeypatch) -> None:
    def whole(self: File) -> bytes:
        raise AssertionError("read whole")

    monkeypatch.setattr(File, "read", whole)
    chains = Chains({"video": (DecodeVideo(6), EachFrame((Resize(16),)))})
    row = chains.row({"id": "a", "video": File(path)}, evaluation)
    assert row["video_valid"]
    np.testing.assert_array_equal(row["video"], chains.row({"id": "a", "video": content}, evaluation)["video"])
    gone = chains.row({"id": "a", "video": File(path + "x")}, evaluation)
    assert (gone["video_valid"], gone["video_bad"]) == (False, 1)


def test_a_large_frame_is_refused_and_a_short_side_is_what_is_made(content: bytes) -> None:
    with pytest.raises(BadExample, match="100×60 pixels, more than most_pixels=5,999"):
        DecodeVideo(2, most_pixels=5_999)(content, None)
    assert DecodeVideo(2, short_side=30)(content, None).values.shape == (2, 30, 50, 3)


def test_users_videos(path: str, content: bytes) -> None:
    decode, crop = DecodeVideo(4), EachFrame((Resize(16),))
    chain = (decode, crop)
    (spec,) = chain_specs({"video": chain}).values()
    reads = VideoInput("video", chain, spec)
    row = reads.row(path)
    assert set(row) == {"video", "video_mask"}
    np.testing.assert_array_equal(row["video"], reads.row(content)["video"])
    decoded = DecodeVideo(60)(content, None).values
    np.testing.assert_array_equal(reads.row(decoded)["video"], crop(decode(decoded, None), None).values)
    items, alone = reads.listed([path, content])
    assert (len(list(items)), alone) == (2, False)
    assert reads.listed(decoded)[1]
    assert len(list(reads.listed(np.stack([decoded, decoded]))[0])) == 2
    for given, said in (
        (path + "x", "there is no file .*clip.mp4x; did you mean clip.mp4"),
        (b"", "the video is empty"),
        (b"RIFF....WAVEfmt ", "no video"),
        (decoded.astype(np.float32), r"an array of float32\[60, 60, 100, 3\]; it takes a file name"),
        (3, "an int; it takes a file name"),
        ("https://x.y/z.mp4", "lies on the web"),
    ):
        with pytest.raises(UserError, match=said):
            reads.row(given)


def test_a_video_that_is_longer_than_what_is_watched_is_told_once(path: str, recwarn) -> None:
    for rate, said in ((None, 0), (1.5, 0), (4.0, 1)):
        chain = (DecodeVideo(4, rate=rate), EachFrame((Resize(16),)))
        (spec,) = chain_specs({"video": chain}).values()
        reads = VideoInput("video", chain, spec)
        reads.row(path)
        reads.row(path, 1)
        assert [str(each.message) for each in recwarn] == [
            "video clip.mp4: the first 1 of its 2.4 seconds are watched; further videos that are longer aren't named"
        ] * said


def test_a_video_is_drawn_as_four_of_its_frames(content: bytes) -> None:
    drawn = VideoInput.drawn(content)
    rows = [np.split(half, 2, axis=1) for half in np.split(drawn, 2, axis=0)]
    assert [number_of(frame) for row in rows for frame in row] == [7, 22, 37, 52]
    array = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8)
    assert VideoInput.drawn(array)[:, :, 0].tolist() == [[1] * 3 + [3] * 3] * 2 + [[5] * 3 + [7] * 3] * 2
    np.testing.assert_array_equal(VideoInput.drawn([encoded(frame) for frame in array]), VideoInput.drawn(array))


def test_a_video_of_stored_frames_can_be_watched() -> None:
    """Ten seconds of them at most, eight a second; the levels are those of the frames, but for the encoder's loss."""
    levels = np.arange(100, dtype=np.uint8) * 2 + 20
    array = levels[:, None, None, None] * np.ones((1, 30, 51, 3), np.uint8)
    for value in (array, [encoded(frame) for frame in array], [Image.fromarray(frame) for frame in array]):
        with av.open(io.BytesIO(VideoInput.filmed(value, 10.0, 16)), "r") as opened:
            frames = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
            assert (len(opened.streams), opened.streams.video[0].average_rate) == (1, 8)
        assert {frame.shape for frame in frames} == {(16, 26, 3)}
        np.testing.assert_allclose([frame.mean() for frame in frames], levels[:80], atol=3)
    small = VideoInput.filmed(array[:3, :1, :1], 10.0, 16)  # an encoder takes no side of one pixel
    with av.open(io.BytesIO(small), "r") as opened:
        assert len(list(opened.decode(video=0))) == 3


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "no frames"),
        (np.zeros((0, 4, 4, 3), np.uint8), "no frames"),
        ([b"no picture"], "picture"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], "must have one"),
        (7, "not int"),
    ],
)
def test_a_video_that_is_none_is_a_bad_example_where_it_is_shown_too(value: Any, says: str) -> None:
    for show in (VideoInput.drawn, lambda value: VideoInput.filmed(value, 10.0, 16)):
        with pytest.raises(BadExample, match=says):
            show(value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("folder")
    for number in range(5):
        (root / f"{number}.mp4").write_bytes(Clip(frames=20 + 5 * number).made())
    (root / "broken.mp4").write_bytes(b"\0\0\0\x18ftypisom no more")
    return root


def test_batches_are_the_same_for_any_workers_hosts_and_resume(folder: Path) -> None:
    def read(step: int, count: int, host: tuple[int, int] = (0, 1), workers: int = 0) -> list[dict[str, np.ndarray]]:
        mixture = Mixture(
            {"own": 1.0},
            sources={"own": VideoFolder(str(folder), shares={"train": 1.0})},
            transforms={"video": (DecodeVideo(3), EachFrame((Resize(8), RandomAffine(translate=0.2))))},
            workers=workers,
        )
        stream = batches(mixture, batch_size=4, seed=1, step=step, host=host)
        found = [next(stream) for _ in range(count)]
        stream.close()  # pyright: ignore[reportAttributeAccessIssue]
        return found

    whole = read(0, 4)
    assert {bool(valid) for batch in whole for valid in batch["video_valid"]} == {True, False}  # one is broken
    assert len({batch["video"].tobytes() for batch in whole}) == 4
    halves = [read(0, 2, (host, 2)) for host in range(2)]
    joined = [{name: np.concatenate([half[step][name] for half in halves]) for name in whole[0]} for step in range(2)]
    for again in (read(0, 4, workers=2), [*read(0, 1), *read(1, 3)], joined):
        for one, other in zip(whole, again, strict=False):
            assert one.keys() == other.keys()
            for name, array in one.items():
                np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_what_draws_nothing_says_so_and_can_be_kept_in_memory() -> None:
    assert DecodeVideo(4).random
    assert not DecodeVideo(4, jitter=False).random
    assert not DecodeVideo(4, rate=2).random
    assert not EachFrame((Resize(8),)).random
    assert EachFrame((Resize(8), RandomAffine())).random
