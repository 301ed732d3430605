"""No sound is lost without a word: files that were joined, and headers that count less than is there."""

import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from ossicle.audio import AudioLimits, Clip, read_blocks, read_clip
from ossicle.audio import chunks as chunks_module
from ossicle.audio.mpeg import LENGTHS as MPEG_LENGTHS
from ossicle.errors import AudioRefused, AudioUnreadable

RATE = 8_000
ID3 = b"ID3\x04\0\0\0\0\x02\0" + bytes(256)
ID3V1 = b"TAG" + bytes(125)
APE = b"APETAGEX" + struct.pack("<IIII", 2_000, 2_000, 1, 0xA000_0000) + bytes(8) + 1_968 * b"a"  # with its head
APE += b"APETAGEX" + struct.pack("<IIII", 2_000, 2_000, 1, 0x8000_0000) + bytes(8)
# name -> libsndfile's format and subtype
JOINED = {
    "a.wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "ima.wav": ("WAV", "IMA_ADPCM"),
    "a.rf64": ("RF64", "PCM_16"),
    "a.w64": ("W64", "PCM_24"),
    "a.aiff": ("AIFF", "PCM_16"),
    "a.aifc": ("AIFF", "FLOAT"),
    "a.caf": ("CAF", "PCM_16"),
    "alac.caf": ("CAF", "ALAC_16"),
    "a.au": ("AU", "PCM_16"),
    "a.sph": ("NIST", "PCM_16"),
    "a.ogg": ("OGG", "VORBIS"),
    "a.opus": ("OGG", "OPUS"),
    "a.mp3": ("MP3", "MPEG_LAYER_III"),
}
SILENT = {"a.ogg", "a.opus", "a.mp3"}  # joined, they are legal: nothing is said


@pytest.fixture(params=[True, False], ids=["with FFmpeg", "without FFmpeg"])
def decoders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the extra `media` is there."""
    if not request.param:
        monkeypatch.setattr("ossicle.audio.recording.import_av", lambda: None)


def noise(seconds: float, *, rate: int = RATE, seed: int = 0, channels: int = 1) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))).astype(np.float32)


def write(path: Path, samples: np.ndarray, *, rate: int = RATE, name: str | None = None) -> bytes:
    """Writes a file in the format of `JOINED`; gives its bytes."""
    form, subtype = JOINED[name or path.name]
    soundfile.write(path, samples, rate, format=form, subtype=subtype)
    return path.read_bytes()


def frames_of(mp3: bytes) -> list[bytes]:
    """The frames of an MP3."""
    at, frames = 0, []
    while at < len(mp3):
        length = MPEG_LENGTHS[int.from_bytes(mp3[at : at + 4]) >> 9]
        frames.append(mp3[at : at + length])
        at += length
    return frames


def checked(path: Path, rate: int = RATE, **options: float) -> Clip:
    """The clip, after a look at its blocks and segments."""
    clip = read_clip(path, rate, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(path, rate, block_seconds=0.3))), clip.samples)
    for start, end in ((0.2, 0.9), (0.9, 1.3), (1.1, 1.7), (0.6, None)):
        if start < clip.seconds:
            piece = read_clip(path, rate, start=start, end=end).samples
            expected = clip.samples[round(start * rate) : None if end is None else round(end * rate)]
            np.testing.assert_allclose(piece, expected, atol=1e-5)
    return clip


# --- joined -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("decoders")
@pytest.mark.parametrize("name", JOINED)
def test_files_one_after_the_other_are_read_to_the_last_sample(name: str, tmp_path: Path) -> None:
    rate, path = (48_000 if name.endswith((".opus", ".mp3")) else RATE), tmp_path / name
    pieces, content = [], b""
    for seed, seconds in enumerate((1.0, 0.7, 0.2)):
        content += write(path, noise(seconds, rate=rate, seed=seed), rate=rate)
        pieces.append(read_clip(path, rate).samples)
    path.write_bytes(content)
    clip = checked(path, rate)
    np.testing.assert_array_equal(clip.samples, np.concatenate(pieces))
    said = f"{path}: the file contains 3 consecutive recordings; they are read as one"
    assert clip.remarks == (() if name in SILENT else (said,))
    assert read_clip(path, 32_000).seconds == pytest.approx(clip.seconds, abs=1e-3)


def test_a_chain_of_flac_in_ogg_is_read_whole(sounds: SimpleNamespace, tmp_path: Path) -> None:
    import av

    content, pieces = b"", []
    for number in range(2):
        sounds.write_media(tmp_path / "a.ogg", "flac", noise(0.5, rate=48_000, seed=number), 48_000)
        content += (tmp_path / "a.ogg").read_bytes()
        with av.open(str(tmp_path / "a.ogg")) as container:
            pieces += [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    (tmp_path / "a.ogg").write_bytes(content)
    clip = read_clip(tmp_path / "a.ogg", 48_000)
    np.testing.assert_allclose(clip.samples, np.concatenate(pieces) / 2.0**15, atol=1e-4)


def test_a_chain_of_vorbis_and_opus_is_read_whole(tmp_path: Path) -> None:
    first = write(tmp_path / "a.ogg", noise(0.5, rate=48_000), rate=48_000)
    second = write(tmp_path / "a.opus", noise(0.5, rate=48_000), rate=48_000)
    (tmp_path / "b.ogg").write_bytes(first + second)
    assert checked(tmp_path / "b.ogg", 48_000).seconds == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("name", ["a.wav", "a.ogg", "a.mp3"])
def test_joined_files_of_other_rates_or_channels_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    first = write(path, noise(0.5, rate=32_000), rate=32_000)
    path.write_bytes(first + write(path, noise(0.5, rate=32_000, channels=2), rate=32_000))
    with pytest.raises(AudioUnreadable, match="changes from 32000 Hz and 1 channels to 32000 Hz and 2; expected one"):
        read_clip(path, RATE)
    path.write_bytes(first + write(path, noise(0.5, rate=44_100), rate=44_100))
    with pytest.raises(AudioUnreadable, match="to 44100 Hz and 1; expected one"):
        list(read_blocks(path, RATE))


@pytest.mark.parametrize("name", ["a.wav", "a.au", "a.aiff", "a.caf", "a.rf64", "a.ogg", "a.mp3"])
def test_a_joined_file_whose_end_was_cut_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    content = 2 * write(path, noise(1.0, rate=44_100), rate=44_100)
    path.write_bytes(content[: round(0.75 * len(content))])
    with pytest.raises(AudioUnreadable, match="the file is truncated: according to its header .* bytes are missing"):
        read_clip(path, RATE)


# --- MPEG -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("decoders")
@pytest.mark.parametrize("between", [b"", ID3, ID3V1, ID3V1 + ID3, APE + ID3V1, bytes(500)])
def test_joined_mp3s_are_read_whatever_tags_lie_between_them(between: bytes, tmp_path: Path) -> None:
    path, pieces = tmp_path / "a.mp3", []
    for seed in range(2):
        write(path, noise(1.0, rate=44_100, seed=seed), rate=44_100)
        pieces.append((path.read_bytes(), read_clip(path, 44_100).samples))
    path.write_bytes(ID3 + pieces[0][0] + between + pieces[1][0] + ID3V1)
    np.testing.assert_array_equal(checked(path, 44_100).samples, np.concatenate([samples for _, samples in pieces]))


@pytest.mark.usefixtures("decoders")
@pytest.mark.parametrize(("rate", "channels"), [(44_100, 1), (48_000, 2), (24_000, 1), (16_000, 2), (8_000, 1)])
def test_an_mp3_that_does_not_say_how_long_it_is_is_read_to_its_end(rate: int, channels: int, tmp_path: Path) -> None:
    """libsndfile guesses from the first frame, and of a variable rate loses most."""
    import av

    path = tmp_path / "a.mp3"
    write(path, np.concatenate([np.zeros((rate, channels)), noise(3.0, rate=rate, channels=channels)]), rate=rate)
    content = b"".join(frames_of(path.read_bytes())[1:])  # without the one that holds the tag
    path.write_bytes(content)
    with av.open(str(path)) as container:
        expected = np.concatenate([frame.to_ndarray().mean(0) for frame in container.decode(audio=0)])
    clip = checked(path, rate)
    np.testing.assert_allclose(clip.samples, expected, atol=1e-3)
    assert clip.seconds > 4
    path.write_bytes(ID3 + content + ID3V1)
    np.testing.assert_array_equal(read_clip(path, rate).samples, clip.samples)


def test_frames_behind_those_that_an_mp3_counts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    content = write(path, noise(1.0, rate=44_100), rate=44_100)
    _, *frames = frames_of(write(path, noise(2.0, rate=44_100), rate=44_100))
    path.write_bytes(content + b"".join(frames))
    assert checked(path, 44_100).seconds == pytest.approx(3.0, abs=0.1)


# --- lengths that are too small ---------------------------------------------------------------------------------------

LENGTHS: dict[str, Callable[[bytes, int], tuple[int, str]]] = {  # where the length of the samples lies, and its form
    "a.wav": lambda data, change: (data.index(b"data") + 4, "<I"),
    "float.wav": lambda data, change: (data.index(b"data") + 4, "<I"),
    "a.aiff": lambda data, change: (data.index(b"SSND") + 4, ">I"),
    "a.aifc": lambda data, change: (data.index(b"SSND") + 4, ">I"),
    "a.au": lambda data, change: (8, ">I"),
    "a.caf": lambda data, change: (data.index(b"data") + 4, ">q"),
    "a.rf64": lambda data, change: (28, "<Q"),
    "a.w64": lambda data, change: (data.index(b"data") + 16, "<Q"),
}
OUTER = {  # the container's length
    "a.wav": (4, "<I"),
    "float.wav": (4, "<I"),
    "a.aiff": (4, ">I"),
    "a.aifc": (4, ">I"),
    "a.rf64": (20, "<Q"),
    "a.w64": (16, "<Q"),
}


def with_less(path: Path, content: bytes, less: int, *, outer: bool) -> None:
    """Writes a file whose header counts less, also for the whole container where `outer` says so."""
    data = bytearray(content)
    places = [LENGTHS[path.name](content, less)] + ([OUTER[path.name]] if outer and path.name in OUTER else [])
    for at, form in places:
        struct.pack_into(form, data, at, struct.unpack_from(form, data, at)[0] - less)
    path.write_bytes(data)


@pytest.mark.usefixtures("decoders")
@pytest.mark.parametrize("name", LENGTHS)
def test_samples_behind_a_length_that_is_too_small_are_refused_with_what_is_left_over(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    content = write(path, noise(1.5))
    with_less(path, content, 8_000, outer=True)
    with pytest.raises(AudioUnreadable, match=r"promises \d+ bytes of sound, and \d+ more bytes follow that are not"):
        read_clip(path, RATE)
    with pytest.raises(AudioUnreadable, match="more bytes follow"):
        list(read_blocks(path, RATE))


@pytest.mark.usefixtures("decoders")
@pytest.mark.parametrize("name", OUTER)
def test_samples_that_only_the_container_counts_are_read_and_it_is_said(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    content = write(path, noise(1.5))
    whole = read_clip(path, RATE).samples
    with_less(path, content, 8_000, outer=False)
    clip = checked(path)
    np.testing.assert_array_equal(clip.samples, whole)
    assert len(clip.remarks) == 1 and "it is read to its end" in clip.remarks[0]


BEHIND = {
    "a list": b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf61.1.100\0\0",
    "a list that was cut": b"LIST" + struct.pack("<I", 2_000) + b"INFOISFT" + 1_500 * b"x",
    "tags": b"id3 " + struct.pack("<I", 266) + ID3 + b"bext" + struct.pack("<I", 602) + bytes(602),
    "a chunk of another name": b"aBc1" + struct.pack("<I", 2_000) + 2_000 * b"\xf7",
    "an ID3 tag": ID3,
    "an ID3v1 tag": ID3V1,
    "an APE tag": APE,
    "zeros": bytes(5_000),
    "zeros and a list": bytes(512) + b"LIST" + struct.pack("<I", 4) + b"INFO",
    "a few bytes": b"\r\nthe end\r\n",
}


@pytest.mark.parametrize("what", BEHIND)
@pytest.mark.parametrize("name", ["a.wav", "float.wav"])
def test_what_belongs_behind_samples_is_no_sound(name: str, what: str, tmp_path: Path) -> None:
    for length in (8_000, 8_001):  # an odd length is filled up
        path = tmp_path / name
        soundfile.write(path, noise(length / RATE), RATE, subtype="PCM_U8" if length % 2 else JOINED[name][1])
        whole = read_clip(path, RATE)
        path.write_bytes(path.read_bytes() + BEHIND[what])
        clip = checked(path)
        np.testing.assert_array_equal(clip.samples, whole.samples)
        assert clip.remarks == ()


@pytest.mark.parametrize("name", ["a.aiff", "a.caf", "a.w64", "a.rf64", "a.au", "a.sph"])
def test_chunks_and_tags_behind_samples_are_no_sound_elsewhere_either(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    content = write(path, noise(1.0))
    whole = read_clip(path, RATE).samples
    chunk = {
        "a.aiff": b"ANNO" + struct.pack(">I", 2_000) + 2_000 * b"x",
        "a.caf": b"info" + struct.pack(">q", 2_000) + 2_000 * b"x",
        "a.w64": b"list" + bytes(12) + struct.pack("<Q", 2_024) + 2_000 * b"x",
        "a.rf64": b"LIST" + struct.pack("<I", 2_000) + 2_000 * b"x",
    }.get(name, b"")
    for behind in (chunk, ID3V1, ID3, bytes(3_000), chunk + ID3V1):
        path.write_bytes(content + behind)
        np.testing.assert_array_equal(read_clip(path, RATE).samples, whole)


def test_a_second_chunk_of_samples_is_refused(tmp_path: Path) -> None:
    content = write(tmp_path / "a.wav", noise(1.0))
    (tmp_path / "a.wav").write_bytes(content + content[content.index(b"data") :])
    with pytest.raises(AudioUnreadable, match="more sound follows in a second chunk"):
        read_clip(tmp_path / "a.wav", RATE)


@pytest.mark.usefixtures("decoders")
@pytest.mark.parametrize("behind", [b"", BEHIND["a list"]])
@pytest.mark.parametrize("name", ["a.wav", "float.wav", "a.aiff", "a.aifc", "a.au"])
def test_a_wrapped_length_is_read_whole(
    name: str, behind: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks_module, "WRAP", 1 << 14)  # for 4 GiB
    path = tmp_path / name
    content = write(path, noise(2.5))
    whole = read_clip(path, RATE).samples
    with_less(path, content, 1 << 14, outer=True)
    path.write_bytes(path.read_bytes() + (behind if name != "a.au" else b""))
    clip = checked(path)
    np.testing.assert_allclose(clip.samples, whole, atol=1e-7)
    assert len(clip.remarks) == 1 and "has wrapped at 4 GiB" in clip.remarks[0]


@pytest.mark.parametrize("length", [0x1000, 0xFFFF_FFFF])
@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.au"])
def test_sound_behind_4_gib_is_read(name: str, length: int, tmp_path: Path) -> None:
    path, rate = tmp_path / name, 48_000
    end = noise(1.0, rate=rate)
    content = write(path, end, rate=rate)
    at, form = LENGTHS[name](content, 0)
    size = struct.unpack_from(form, content, at)[0]
    begin = 24 if name == "a.au" else at + 4
    begin = struct.unpack_from(">I", content, 4)[0] if name == "a.au" else begin
    whole = (1 << 32) + 0x1000
    data = bytearray(content[:begin] + bytes(8 if name == "a.aiff" else 0))
    struct.pack_into(form, data, at, length)
    with open(path, "wb") as file:
        file.write(data)
        try:
            file.seek(begin + whole - (size - (8 if name == "a.aiff" else 0)))
            file.write(content[-(size - (8 if name == "a.aiff" else 0)) :])
        except OSError:
            pytest.skip("a sparse file of 4 GiB cannot be made here")
    sound = whole - (8 if name == "a.aiff" else 0)
    seconds = sound / 2 / rate
    clip = read_clip(path, rate, start=seconds - 1)
    np.testing.assert_allclose(clip.samples, end[:, 0], atol=1e-4)


def test_a_flac_that_counts_too_few_samples_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(2.0), RATE)
    whole = read_clip(path, RATE).samples
    data = bytearray(path.read_bytes())
    for claim in (1, 4_096, 8_000, 15_999):
        data[18:26] = (int.from_bytes(data[18:26]) >> 36 << 36 | claim).to_bytes(8)
        path.write_bytes(data)
        clip = checked(path)
        np.testing.assert_array_equal(clip.samples, whole)
        assert clip.remarks == (
            f"{path}: its header promises {claim} samples, and but the file contains 16000; all are read",
        )


def test_an_ogg_without_its_last_pages_is_read_and_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    content = write(path, noise(20.0, rate=44_100), rate=44_100)
    path.write_bytes(content[: content.rindex(b"OggS")])
    clip = read_clip(path, RATE)
    assert 10 < clip.seconds < 20 and "the last page is not marked as last" in clip.remarks[0]
    pages = content.split(b"OggS")
    path.write_bytes(b"OggS".join(pages[:6] + pages[7:]))
    assert "pages are missing at 1 positions" in read_clip(path, RATE).remarks[0]


# --- channels that cancel ---------------------------------------------------------------------------------------------


def test_channels_that_cancel_are_said_and_no_others(tmp_path: Path) -> None:
    path, one, two = tmp_path / "a.wav", noise(2.0), noise(2.0, seed=1)
    for channels, cancel in (
        ([one, -one], True),
        ([one, -one + 0.01 * two], True),
        ([one, one], False),
        ([one, two], False),
        ([one, 0 * one], False),
        ([one, -two], False),
        ([0 * one, 0 * one], False),
        ([one, -0.5 * one], False),
        ([one, two, -one, -two], True),
    ):
        samples = np.concatenate(channels, axis=1)
        soundfile.write(path, samples, RATE, subtype="FLOAT")
        clips = [read_clip(path, RATE), read_clip(path, 16_000, start=0.5, end=1.0)]
        for clip in clips:
            assert len(clip.remarks) == cancel
            assert not cancel or f"its {len(channels)} channels cancel each other" in clip.remarks[0]
        np.testing.assert_array_equal(clips[0].samples, samples.mean(axis=1))


def test_channels_that_cancel_are_said_for_blocks_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = noise(2.0)
    soundfile.write(tmp_path / "upside.wav", np.concatenate([one, -one], axis=1), RATE, subtype="FLOAT")
    assert sum(map(len, read_blocks(tmp_path / "upside.wav", RATE))) == 16_000
    assert [record.name for record in caplog.records] == ["ossicle.audio"] and "cancel" in caplog.text


def test_the_log_is_told_of_each_recording_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "twice.wav"
    path.write_bytes(2 * write(tmp_path / "a.wav", noise(0.5)))
    for _ in range(3):
        assert len(read_clip(path, RATE).remarks) == 1
    assert len(caplog.records) == 1


def test_a_wav_has_one_track(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", noise(0.5))
    assert read_clip(tmp_path / "a.wav", RATE, track=1).seconds == 0.5
    with pytest.raises(AudioRefused, match=r"a\.wav: track 2 is not available; expected 1 to 1"):
        read_clip(tmp_path / "a.wav", RATE, track=2, limits=AudioLimits())


def test_a_file_that_is_written_again_at_once_is_looked_through_again(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    content = write(path, noise(1.0))
    joined = 2 * write(path, noise(1.0)[:3_989])
    longer = content + bytes(len(joined) - len(content))
    for _ in range(20):
        path.write_bytes(longer)
        assert read_clip(path, RATE).seconds == 1.0
        path.write_bytes(joined)
        assert len(read_clip(path, RATE).samples) == 2 * 3_989
