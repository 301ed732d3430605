"""Sound from a pipe is what the same file is, and what is wrong with it is said."""

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from ossicle.audio import read_clip
from ossicle.audio.stream import ENCODINGS, Layout, stream_blocks
from ossicle.errors import AudioRefused, AudioUnreadable
from ossicle.inference import Reporting

Record = Callable[..., Path]
SUBTYPES = {
    "PCM_U8": "u8",
    "PCM_16": "s16le",
    "PCM_24": "s24le",
    "PCM_32": "s32le",
    "FLOAT": "f32le",
    "DOUBLE": "f64le",
}


class Pipe(io.BytesIO):
    """Gives no more than a few bytes at a time, as a pipe may."""

    most = 1000

    def read(self, count: int | None = -1) -> bytes:
        return super().read(self.most if count is None or count < 0 else min(count, self.most))

    read1 = read


def heard(data: bytes, rate: int, *, most: int = 1000, **options: object) -> np.ndarray:
    pipe = Pipe(data)
    pipe.most = most
    return np.concatenate([np.zeros(0, np.float32), *stream_blocks(pipe, rate, **options)])  # type: ignore[arg-type]


@pytest.mark.parametrize("subtype", SUBTYPES)
@pytest.mark.parametrize(("rate", "channels"), [(32_000, 1), (44_100, 2)])
def test_a_wav_through_a_pipe_has_the_samples_of_the_file(
    subtype: str, rate: int, channels: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (rate // 5, channels)), rate, subtype=subtype)
    np.testing.assert_allclose(heard(path.read_bytes(), 32_000), read_clip(path, 32_000).samples, atol=1e-6)


@given(st.sampled_from(sorted(ENCODINGS)), st.integers(1, 3), st.integers(1, 50), st.integers(1, 17))
def test_raw_samples_are_cut_anywhere(encoding: str, channels: int, frames: int, most: int) -> None:
    layout = Layout(encoding=encoding, rate=8000, channels=channels)
    data = np.random.default_rng(frames).integers(0, 255, frames * layout.frame_bytes, dtype=np.uint8).tobytes()
    if encoding.startswith("f"):
        data = np.linspace(-1, 1, frames * channels).astype(ENCODINGS[encoding]).tobytes()
    pieces = heard(data, 8000, most=most, layout=layout)
    whole = heard(data, 8000, most=len(data), layout=layout)
    assert len(pieces) == frames
    np.testing.assert_array_equal(pieces, whole)


def test_24_bits_are_the_upper_ones_of_32() -> None:
    data = b"".join(value.to_bytes(3, "little", signed=True) for value in (0, 1, -1, 2**22, -(2**23)))
    values = heard(data, 8000, layout=Layout(encoding="s24le", rate=8000))
    np.testing.assert_allclose(values, np.array([0, 2**-23, -(2**-23), 0.5, -1.0]))


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_header_that_does_not_know_the_length_is_read_to_the_end(length: int, record: Record) -> None:
    data = bytearray(record("a.wav", seconds=0.2).read_bytes())
    at = bytes(data).index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", length)
    said: list[str] = []
    assert len(heard(bytes(data), 32_000, cut_off=said.append)) >= 6400 and not said


@pytest.mark.parametrize("kind", ["WAV", "RF64"])
def test_what_follows_the_samples_is_no_sound_and_less_than_was_promised_is_told(kind: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(8000, 0.25), 8000, format=kind, subtype="PCM_16")
    data, said = (tmp_path / "a.wav").read_bytes(), list[str]()
    notes = data + b"LIST" + struct.pack("<I", 400) + bytes(range(200)) * 2
    assert len(heard(notes, 8000, cut_off=said.append)) == 8000 and not said
    assert len(heard(data[:-8000], 8000, cut_off=said.append)) == 4000
    assert said == ["standard input ends early: its header promises 16000 bytes of sound, and 8000 came"]


def test_two_gigabytes_and_more_are_a_length(record: Record) -> None:
    data = bytearray(record("a.wav", seconds=0.2).read_bytes())
    at, said = bytes(data).index(b"data") + 4, list[str]()
    data[at : at + 4] = struct.pack("<I", 3_000_000_000)
    heard(bytes(data), 32_000, cut_off=said.append)
    assert "promises 3000000000 bytes" in said[0]


def test_less_than_a_sample_of_the_model_is_no_sound() -> None:
    with pytest.raises(AudioRefused, match="no samples; at least one is needed"):
        heard(bytes(2), 8000, layout=Layout(encoding="s16le", rate=192_000))


@pytest.mark.parametrize("block_seconds", [0.01, 0.1, 3.0])
def test_live_scores_are_those_of_the_same_samples_in_a_file(
    block_seconds: float, shared_bundle: Path, tmp_path: Path
) -> None:
    import ossicle

    predictor, reporting, path = ossicle.load(shared_bundle), Reporting(top_k=3), tmp_path / "a.wav"
    sound = np.random.default_rng(0).normal(scale=0.1, size=(round(3.3 * 44_100), 2))
    soundfile.write(path, sound, 44_100, subtype="PCM_16")
    offline = predictor.predict(path, hop=0.5, reporting=reporting).rows
    pipe = Pipe(path.read_bytes())
    pipe.most = 100_000
    blocks = stream_blocks(pipe, predictor.rate, block_seconds=block_seconds)
    some = predictor.stream(blocks, file=str(path), reporting=reporting, hop=0.5, batch=1)
    live = [row for rows in some for row in rows]
    assert [replace(row, score=0.0) for row in live] == [replace(row, score=0.0) for row in offline]
    np.testing.assert_allclose([row.score for row in live], [row.score for row in offline], atol=1e-5, rtol=0)
    assert len({row.score for row in live}) == len(live) > 12  # the scores tell windows apart


def test_a_stream_that_stops_inside_a_sample_is_named_and_the_rest_is_heard(record: Record) -> None:
    said: list[str] = []
    samples = heard(bytes(9), 8000, layout=Layout(encoding="s16le", rate=8000, channels=2), cut_off=said.append)
    assert len(samples) == 2
    assert said == ["standard input ends in the middle of a sample; its 1 of 4 bytes are dropped"]
    said.clear()
    heard(record("a.wav").read_bytes()[:-6], 32_000, cut_off=said.append)
    assert "ends early" in said[0] and "middle of a sample: 2 of 4" in said[1]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "ends after 0 bytes"),
        (b"RIFF", "ends after 4 bytes"),
        (b"fLaC" + bytes(20), "not WAV; send WAV, or raw samples"),
        (b"RIFF\0\0\0\0WAVE", "inside its header"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "samples before their format"),
        (b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\xff", "has 4294967295 bytes"),
        (b"RIFF\0\0\0\0WAVEfmt \2\0\0\0ab", "2 bytes; at least 16"),
        (b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 85, 1, 8000, 0, 0, 0), "kind 85"),
        (b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 0, 8000, 0, 0, 16), "0 channels"),
    ],
)
def test_what_is_no_wav_is_one_sentence(data: bytes, said: str) -> None:
    with pytest.raises(AudioUnreadable, match=said):
        heard(data, 8000)


def test_a_rate_or_a_sample_outside_the_limits_is_refused() -> None:
    with pytest.raises(AudioRefused, match="rate is 5 Hz"):
        heard(bytes(8), 8000, layout=Layout(encoding="s16le", rate=5))
    with pytest.raises(AudioRefused, match="0.000 s is nan"):
        heard(struct.pack("<f", float("nan")), 8000, layout=Layout(encoding="f32le", rate=8000))
    with pytest.raises(ValueError, match="block_seconds"):
        heard(bytes(8), 8000, layout=Layout(encoding="s16le", rate=8000), block_seconds=0.0)
    with pytest.raises(ValueError, match="available: u8, s16le"):
        Layout(encoding="mp3", rate=8000)


# --- more sound than the header says ----------------------------------------------------------------------------------


def wav(samples: np.ndarray, *, rate: int = 8000, less: int = 0, subtype: str = "PCM_16") -> bytes:
    """The bytes of a WAV whose header counts so many bytes less than are there."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    data = bytearray(file.getvalue())
    at = bytes(data).index(b"data") + 4
    struct.pack_into("<I", data, at, struct.unpack_from("<I", data, at)[0] - less)
    return bytes(data)


RAMP = np.linspace(-0.5, 0.5, 8000)


@pytest.mark.parametrize("less", [2, 1_000, 7_001, 15_998])
@pytest.mark.parametrize("most", [7, 1000, 100_000])
def test_samples_that_the_header_does_not_count_are_heard_and_it_is_said(less: int, most: int) -> None:
    said: list[str] = []
    samples = heard(wav(RAMP, less=less), 8000, most=most, remark=said.append)
    if less < 12:  # a few bytes may be anything
        assert len(samples) >= 7_998
        return
    np.testing.assert_allclose(samples, RAMP, atol=1e-4)
    assert said == [
        f"standard input: its header promises {16_000 - less} bytes of sound, but more follow; all are read"
    ]


@pytest.mark.parametrize("zeros", [1, 11, 12, 13, 40, 5_000])
def test_silence_ahead_of_samples_that_the_header_does_not_count_is_silence(zeros: int) -> None:
    sound = np.concatenate([np.full(4_000, 0.25), np.zeros(zeros), np.full(4_000, 0.25)])
    samples = heard(wav(sound, less=2 * (4_000 + zeros)), 8000)
    np.testing.assert_allclose(samples, sound, atol=1e-4)


@pytest.mark.parametrize(
    "behind",
    [
        bytes(5_000),
        b"LIST" + struct.pack("<I", 2_000) + 2_000 * b"\xf1",
        b"LIST" + struct.pack("<I", 2) + b"\xf1\xf1id3 " + struct.pack("<I", 3) + b"\xf1\xf1\xf1",
        b"aBc1" + struct.pack("<I", 2_000) + 2_000 * b"\xf1" + bytes(100),
        b"ID3\x04\0\0\0\0\x02\0" + 256 * b"\xf1",
        b"TAG" + 125 * b"\xf1",
        b"the end",
    ],
)
def test_chunks_tags_and_zeros_behind_the_samples_of_a_pipe_are_no_sound(behind: bytes) -> None:
    said: list[str] = []
    samples = heard(wav(RAMP) + behind, 8000, remark=said.append, cut_off=said.append)
    np.testing.assert_allclose(samples, RAMP, atol=1e-4)
    assert said == []


def test_wavs_one_after_the_other_in_a_pipe_are_heard_as_one() -> None:
    said: list[str] = []
    notes = b"LIST" + struct.pack("<I", 4) + b"INFO"
    samples = heard(wav(RAMP) + notes + wav(-RAMP) + wav(RAMP[:101]), 8000, remark=said.append)
    np.testing.assert_allclose(samples, np.concatenate([RAMP, -RAMP, RAMP[:101]]), atol=1e-4)
    assert said == ["standard input: the stream contains several consecutive recordings; they are read as one"]
    with pytest.raises(
        AudioUnreadable, match="another WAV follows, of 16000 Hz and 1 channels where the first has 8000"
    ):
        heard(wav(RAMP) + wav(RAMP, rate=16_000), 8000)


def test_channels_that_cancel_are_said_while_sound_still_arrives() -> None:
    sound = np.stack([RAMP, -RAMP], axis=1)
    said: list[str] = []
    blocks = stream_blocks(io.BytesIO(wav(np.tile(sound, (30, 1)))), 8000, block_seconds=1.0, remark=said.append)
    for _, _ in zip(range(12), blocks, strict=False):
        pass
    assert len(said) == 1 and "its 2 channels cancel each other" in said[0]
    assert len(list(blocks)) > 10 and len(said) == 1
    said.clear()
    heard(wav(sound), 8000, remark=said.append)
    assert len(said) == 1
