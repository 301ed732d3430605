"""Time stamps and tracks of media: what is heard lies where a player would play it."""

from collections.abc import Iterator
from contextlib import nullcontext
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ossicle.audio import AudioLimits, Clip, read_blocks, read_clip
from ossicle.audio.media import Clock
from ossicle.errors import AudioRefused, AudioUnreadable

RATE = 48_000


def steps(seconds: float, *, frequency: float = 440.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def heard(clip: Clip) -> list[tuple[float, float]]:
    """The stretches of a clip that hold sound, in seconds, to a hundredth."""
    size = clip.rate // 100
    loud = np.abs(clip.samples[: len(clip.samples) // size * size].reshape(-1, size)).max(axis=1) > 0.1
    edges = np.flatnonzero(np.diff(np.r_[False, loud, False].astype(int)))
    return [(begin / 100, end / 100) for begin, end in edges.reshape(-1, 2).tolist()]


def checked(path: Path, rate: int = 16_000, **options: int) -> Clip:
    """The clip, after a look at its blocks and segments."""
    clip = read_clip(path, rate, **options)  # type: ignore[arg-type]
    blocks = read_blocks(path, rate, block_seconds=0.3, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.concatenate(list(blocks)), clip.samples)
    for start, end in ((0.5, 1.5), (1.9, 2.6), (2.5, None)):
        if start < clip.seconds:
            piece = read_clip(path, rate, start=start, end=end, **options).samples  # type: ignore[arg-type]
            expected = clip.samples[round(start * rate) : None if end is None else round(end * rate)]
            np.testing.assert_allclose(piece, expected, atol=1e-5)
    return clip


def close(found: list[tuple[float, float]], expected: list[tuple[float, float]]) -> bool:
    """Whether the stretches are those, to 0.06 s: an encoder begins a little early."""
    return np.shape(found) == np.shape(expected) and np.allclose(found, expected, atol=0.06)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mkv", "aac"),
        ("a.mp4", "aac"),
        ("a.mov", "pcm_s16le"),
        ("a.webm", "libopus"),
        ("a.ts", "aac"),
        ("a.mkv", "flac"),
    ],
)
def test_sound_that_begins_late_is_behind_silence(
    name: str, codec: str, sounds: SimpleNamespace, tmp_path: Path
) -> None:
    picture = 0.0 if name == "a.webm" else 4.0  # FFmpeg would have to encode VP8
    tracks = [[(2.0, steps(1.5))]] if picture else [[(2.0, steps(1.5))], [(0.0, steps(0.2))]]
    path = sounds.write_timed(tmp_path / name, tracks, codec=codec, picture=picture)
    assert close(heard(checked(path, track=1)), [(2.0, 3.5)])


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "aac"), ("a.mp4", "aac"), ("a.mka", "libopus"), ("a.ts", "aac")])
def test_a_gap_is_silence(name: str, codec: str, sounds: SimpleNamespace, tmp_path: Path) -> None:
    piece = steps(48 * 1_024 / RATE)
    path = sounds.write_timed(tmp_path / name, [[(0.0, piece), (3.0, piece), (4.5, piece)]], codec=codec)
    assert close(heard(checked(path)), [(0.0, 1.024), (3.0, 4.024), (4.5, 5.524)])


@pytest.mark.parametrize("codec", ["aac", "libopus", "flac", "libmp3lame", "pcm_s16le"])
def test_an_encoders_delay_and_coarse_stamps_neither_shift_nor_pad(
    codec: str, sounds: SimpleNamespace, tmp_path: Path
) -> None:
    rate = 48_000 if codec == "libopus" else 44_100  # of which Matroska's milliseconds hold no frame
    path = sounds.write_timed(tmp_path / "a.mka", [[(0.0, steps(3.0))]], rate, codec=codec)
    import av

    with av.open(str(path)) as container:
        decoded = sum(frame.samples for frame in container.decode(audio=0))
    clip = checked(path, rate)
    assert len(clip.samples) == decoded and clip.remarks == ()


def test_joined_broadcasts_are_heard_one_after_the_other(sounds: SimpleNamespace, tmp_path: Path) -> None:
    content = b"".join(
        sounds.write_timed(tmp_path / "a.ts", [[(begins, steps(1.5))]]).read_bytes() for begins in (100.0, 5.0, 0.0)
    )
    (tmp_path / "a.ts").write_bytes(content)
    assert checked(tmp_path / "a.ts").seconds == pytest.approx(4.5, abs=0.2)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
def test_a_recording_that_begins_at_any_time_of_day_begins_at_0(
    name: str, sounds: SimpleNamespace, tmp_path: Path
) -> None:
    path = sounds.write_timed(tmp_path / name, [[(5_000.0, steps(1.0))]])
    if name != "a.mp4":  # where FFmpeg writes an empty stretch ahead of it
        assert checked(path).seconds == pytest.approx(1.0, abs=0.1)


def test_a_gap_beyond_the_limit_is_refused_without_its_memory(sounds: SimpleNamespace, tmp_path: Path) -> None:
    path = sounds.write_timed(tmp_path / "a.mkv", [[(0.0, steps(1.0)), (50_000.0, steps(1.0))]])
    found = r"a\.mkv: its time stamps have a gap of (49999|50000) s at 1\.\d+ s; at most 3600 s are filled with silence"
    for read in (lambda: read_clip(path, 16_000), lambda: list(read_blocks(path, 16_000))):
        with pytest.raises(AudioRefused, match=found):
            read()
    assert read_clip(path, 16_000, end=0.9).seconds == pytest.approx(0.9)
    short = sounds.write_timed(tmp_path / "b.mkv", [[(0.0, steps(1.0)), (3.0, steps(1.0))]])
    with pytest.raises(AudioRefused, match="at most 1.5 s are filled with silence"):
        list(read_blocks(short, 16_000, limits=AudioLimits(seconds=1.5)))


def times(begins: list[float | None], *, length: float = 0.1, **options: object) -> list[float]:
    """The seconds of silence ahead of each frame."""
    clock = Clock("a", 1_000, zero=0, timed=True, longest=60.0, **options)  # type: ignore[arg-type]
    clock.slack = 50
    stamps = [None if begin is None else Fraction(begin).limit_denominator(1_000) for begin in begins]
    pairs = zip(stamps, [*stamps[1:], None], strict=True)
    return [clock.silence_before(now, round(1_000 * length), following=after) / 1_000 for now, after in pairs]


def test_a_clock_believes_no_single_stamp_and_follows_those_that_stay() -> None:
    assert times([0.0, 0.1, 0.2]) == [0, 0, 0]
    assert times([0.04, 0.14, 0.24]) == [0, 0, 0]  # a delay
    assert times([-0.1, 0.0, 0.1]) == [0, 0, 0]
    assert times([1.0, 1.1, 1.2]) == [1.0, 0, 0]
    assert times([0.0, None, None, 1.0]) == [0, 0, 0, 0.7]
    assert times([0.0, 30.0, 0.2, 0.3]) == [0, 0, 0, 0]  # one wrong stamp
    assert times([0.0, 0.1, 0.06, 0.16, 0.26]) == [0, 0, 0, 0, 0]  # an overlap
    assert times([0.0, 0.1, 0.2, 0.36, 0.52, 0.68]) == [0, 0, 0, 0.06, 0.06, 0.06]  # slow, and always told
    back = [0.0, 0.1, 5.0, 5.1, 0.0, 0.1, 0.2, 0.8]
    assert times(back) == [0, 0, 4.8, 0, 0, 0, 0, 0.5]  # a new clock, with a gap of its own
    with pytest.raises(AudioRefused, match="at most 60 s"):
        times([0.0, 40.0, 80.0])


# --- tracks -----------------------------------------------------------------------------------------------------------


def test_the_first_track_is_read_and_the_others_are_said(sounds: SimpleNamespace, tmp_path: Path) -> None:
    path = sounds.write_timed(tmp_path / "a.mkv", [[(0.0, 0 * steps(1.0))], [(0.0, steps(1.0))]])
    clip = checked(path)
    assert heard(clip) == []
    assert clip.remarks == (f"{path}: it has 2 audio tracks; track 1, the first, is read (--track selects another)",)
    assert checked(path, track=1).remarks == ()
    assert close(heard(checked(path, track=2)), [(0.0, 1.0)])
    with pytest.raises(AudioRefused, match=r"a\.mkv: track 3 is not available; expected 1 to 2"):
        read_clip(path, 16_000, track=3)


def test_the_track_that_is_marked_as_default_is_read(sounds: SimpleNamespace, tmp_path: Path) -> None:
    path = sounds.write_timed(tmp_path / "a.mkv", [[(0.0, 0 * steps(1.0))], [(0.0, steps(1.0))]], marked=1)
    clip = checked(path)
    assert close(heard(clip), [(0.0, 1.0)])
    assert "it has 2 audio tracks; track 2, its default, is read" in clip.remarks[0]


# --- cut and joined ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mkv", "aac"), ("a.webm", "libopus"), ("a.mka", "flac"), ("a.mp4", "aac"), ("a.mov", "pcm_s16le")],
)
def test_media_that_were_cut_are_refused(name: str, codec: str, sounds: SimpleNamespace, tmp_path: Path) -> None:
    path = sounds.write_timed(tmp_path / name, [[(0.0, steps(4.0))]], codec=codec)
    content = path.read_bytes()
    if name in ("a.mp4", "a.mov"):  # the table of contents goes first, as on the web
        content = first_the_table(content)
        path.write_bytes(content)
    assert read_clip(path, 16_000).seconds == pytest.approx(4.0, abs=0.1)
    path.write_bytes(content[: round(0.6 * len(content))])
    with pytest.raises(
        AudioUnreadable, match=rf"{name}: the file is truncated: according to its header \d+ bytes are missing"
    ):
        read_clip(path, 16_000)


def first_the_table(content: bytes) -> bytes:
    """Moves the last box of an MP4 ahead of the samples, and what it says of their places with it."""
    at = content.rindex(b"moov") - 4
    table, end = bytearray(content[at:]), len(content) - at
    place = table.index(b"stco") + 12
    for entry in range(place, place + 4 * int.from_bytes(table[place - 4 : place]), 4):
        table[entry : entry + 4] = (int.from_bytes(table[entry : entry + 4]) + end).to_bytes(4)
    samples = content.index(b"mdat") - 4
    return content[:samples] + bytes(table) + content[samples:at]


@pytest.mark.parametrize(
    ("name", "codec", "read"),
    [
        ("a.mp4", "aac", False),
        ("a.flv", "aac", False),
        ("a.tta", "tta", False),
        ("a.mkv", "aac", True),
        ("a.webm", "libopus", True),
        ("a.aac", "aac", True),
        ("a.ac3", "ac3", True),
        ("a.avi", "ac3", True),
        ("a.mpg", "mp2", True),
        ("a.ts", "aac", True),
    ],
)
def test_joined_media_are_read_whole_or_refused(
    name: str, codec: str, read: bool, sounds: SimpleNamespace, tmp_path: Path
) -> None:
    rate = 44_100 if name == "a.flv" else RATE
    path = sounds.write_media(tmp_path / name, codec, sounds.chirp(rate, 2.0), rate)
    whole = read_clip(path, 16_000).seconds
    path.write_bytes(2 * path.read_bytes())
    if read:
        assert read_clip(path, 16_000).seconds == pytest.approx(2 * whole, abs=0.2)
    else:
        with pytest.raises(AudioUnreadable, match=f"{name}: the file contains another recording after the first one"):
            read_clip(path, 16_000)


def test_a_track_that_begins_in_the_middle_is_a_sentence(
    sounds: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyAV knows the streams that were there when it opened the file, and raises IndexError at a packet of another."""
    import av

    def opened(*arguments: Any, **options: Any) -> Any:
        container = av.open(*arguments, **options)

        def decode(stream: Any) -> Iterator[Any]:
            yield from islice(container.decode(stream), 3)
            raise IndexError("list index out of range")

        facts = {name: getattr(container, name) for name in ("streams", "format", "start_time")}
        return nullcontext(SimpleNamespace(decode=decode, **facts))

    path = sounds.write_timed(tmp_path / "a.ts", [[(0.0, steps(1.0))]])
    stub = SimpleNamespace(open=opened, error=av.error, stream=av.stream)
    monkeypatch.setattr("ossicle.audio.recording.import_av", lambda: stub)
    with pytest.raises(AudioUnreadable, match="a track starts in the middle that the header does not list"):
        read_clip(path, 16_000)
