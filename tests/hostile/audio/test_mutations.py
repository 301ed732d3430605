"""Damaged recordings: whatever the bytes, a finite clip within the limits or one clear error, soon, and no noise.

OSSICLE_MUTATIONS=100000 makes the nightly run of this file.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ossicle.audio import AudioLimits, Clip, read_blocks, read_clip
from ossicle.errors import AudioError

CASES = int(os.environ.get("OSSICLE_MUTATIONS", "2000"))
SECONDS_ALLOWED = 2.0  # of this process: a busy machine is no fault of the decoder's
BYTES_ALLOWED = 64 << 20
resource = pytest.importorskip("resource", reason="peak memory is read where the system tells it")
LIMITS = AudioLimits(seconds=20.0, channels=8, min_rate=4_000, max_rate=200_000)

# All randomness of a case comes from one drawn seed: Hypothesis then spends its time on the decoders.
damage = st.tuples(
    st.integers(0, 2**32 - 1), st.sampled_from(["flip", "header", "cut", "drop", "repeat", "run", "splice"])
)


def damaged(content: bytes, other: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """One act of damage; headers are hit most, as they hold what a decoder believes."""
    data = bytearray(content)
    if not data:
        return other
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 1 + max(1, len(data) // 4)))
    match kind:
        case "flip":
            for place in rng.integers(len(data), size=rng.integers(1, 20)):
                data[place] = int(rng.integers(256))
        case "header":
            for place in rng.integers(min(96, len(data)), size=rng.integers(1, 6)):
                data[place] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)]))
        case "cut":
            del data[at:]
        case "drop":
            del data[at : at + length]
        case "repeat":
            data[at:at] = data[at : at + length]
        case "run":
            data[at : at + length] = bytes([int(rng.choice([0, 0xFF]))]) * length
        case "splice":
            data[at:] = other[int(rng.integers(len(other))) :]
    return bytes(data)


def peak_bytes() -> int:
    """The most memory this process has ever held: what one case adds to it, that case took."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def decode(path: Path, *, in_blocks: bool = True) -> Clip | None:
    """Reads a file as clip and as blocks, and holds what comes to the promise."""
    started, held = time.process_time(), peak_bytes()
    try:
        clip = read_clip(path, 32_000, limits=LIMITS)
    except AudioError as error:
        message = str(error)
        assert path.name in message
        assert "\n" not in message
        clip = None
    taken = time.process_time() - started
    assert taken < SECONDS_ALLOWED, f"{taken:.2f} s"
    assert peak_bytes() - held < BYTES_ALLOWED, f"{(peak_bytes() - held) >> 20} MiB"
    if clip is None:
        return None
    assert clip.samples.dtype == np.float32 and clip.samples.ndim == 1
    assert np.isfinite(clip.samples).all()
    assert 0 < clip.seconds <= LIMITS.seconds
    assert LIMITS.min_rate <= clip.source_rate <= LIMITS.max_rate
    assert 1 <= clip.source_channels <= LIMITS.channels
    if not in_blocks:
        return clip
    joined = np.concatenate(list(read_blocks(path, 32_000, block_seconds=0.05, limits=LIMITS)))
    np.testing.assert_array_equal(joined, clip.samples)
    return clip


def test_damaged_recordings_give_a_finite_clip_or_an_error(seeds, tmp_path, capfd):
    names = sorted(seeds)
    outcomes = {"clip": 0, "error": 0}

    @settings(
        max_examples=CASES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(name=st.sampled_from(names), other=st.sampled_from(names), acts=st.lists(damage, min_size=1, max_size=3))
    def check(name, other, acts):
        content = seeds[name]
        for seed, kind in acts:
            content = damaged(content, seeds[other], kind, np.random.default_rng(seed))
        path = tmp_path / name
        path.write_bytes(content)
        in_blocks = acts[0][0] % 4 == 0  # they cost as much again
        outcomes["clip" if decode(path, in_blocks=in_blocks) else "error"] += 1

    check()
    assert min(outcomes.values()) > CASES // 10, outcomes  # the damage is neither harmless nor always fatal
    assert capfd.readouterr() == ("", "")


MAGIC = [
    b"", b"RIFF\xff\xff\xff\xffWAVEfmt ", b"RF64\xff\xff\xff\xffWAVEds64", b"FORM\x00\x00\xff\xffAIFFCOMM",
    b"fLaC\x00\x00\x00\x22", b"OggS\x00\x02", b"ID3\x04\x00", b"\xff\xfb\x90\x00", b"\xff\xfe",
    b"caff\x00\x01\x00\x00desc",
    b".snd\x00\x00\x00\x18", b"NIST_1A\n   1024\n", b"Creative Voice File\x1a\x1a\x00", b"\x00\x00\x00\x20ftypM4A ",
    b"\x1aE\xdf\xa3", b"#!AMR\n", b"\xff\xf1\x50\x80", b"\x0b\x77", b"wvpk", b"MAC ", b"TTA1", b"FLV\x01",
    b"\x00\x00\x01\xba", b"G" * 189,
]  # fmt: skip


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(magic=st.sampled_from(MAGIC), rest=st.binary(max_size=600))
def test_any_bytes_give_a_finite_clip_or_an_error(magic, rest, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.wav"
    path.write_bytes(magic + rest)
    decode(path)


TELLING = (".wav", ".rf64", ".w64", ".flac", ".aiff", ".aifc", ".caf", ".au")


@pytest.mark.parametrize("sixtyfourths", range(0, 64, 3))
def test_a_recording_cut_anywhere_is_an_error_where_its_header_tells_and_else_its_beginning(
    sixtyfourths, seeds, tmp_path
):
    for name, content in seeds.items():
        path = tmp_path / name
        path.write_bytes(content[: len(content) * sixtyfourths // 64])
        clip = decode(path)
        # Where a header says how much there should be, less is an error; a tenth of these short ones may be missing.
        assert clip is None or clip.seconds > 0.085 or not name.endswith(TELLING)
