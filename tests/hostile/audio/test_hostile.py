"""Recordings made to mislead: lying headers, bombs, other kinds of file under a recording's name, odd names."""

import gc
import gzip
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ossicle.audio import AudioLimits, read_blocks, read_clip
from ossicle.errors import AudioError, AudioRefused, AudioUnreadable

MEMORY_ALLOWED = 64 << 20


@contextmanager
def little_memory() -> Iterator[None]:
    """Fails if numpy and Python together ever held more than any refused file may cost."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_ALLOWED, f"{peak >> 20} MiB"


def wav_with(path: Path, samples: np.ndarray, **fields: int) -> Path:
    """Writes a 16-bit WAV at 32 kHz, then changes fields of its header."""
    soundfile.write(path, samples, 32_000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    places = {"codec": (20, "<H"), "channels": (22, "<H"), "rate": (24, "<I"), "align": (32, "<H"), "bits": (34, "<H")}
    places["bytes"] = (data.index(b"data") + 4, "<I")
    for field, value in fields.items():
        at, form = places[field]
        struct.pack_into(form, data, at, value)
    path.write_bytes(data)
    return path


def flac_claiming(path: Path, samples: np.ndarray, frames: int) -> Path:
    """Writes a FLAC whose header claims any number of frames (36 bits)."""
    soundfile.write(path, samples, 32_000)
    data = bytearray(path.read_bytes())
    data[18:26] = (int.from_bytes(data[18:26], "big") >> 36 << 36 | frames).to_bytes(8, "big")
    path.write_bytes(data)
    return path


RAMP = np.linspace(-0.5, 0.5, 32_000)

# --- lengths that lie -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", [32_001, 0])
def test_a_flac_that_claims_little_more_or_nothing_returns_what_decodes(claim, tmp_path):
    path = flac_claiming(tmp_path / "liar.flac", RAMP, claim)
    with little_memory():
        clip = read_clip(path, 32_000)
        assert sum(map(len, read_blocks(path, 16_000))) == 16_000
        assert len(read_clip(path, 32_000, start=0.5).samples) == 16_000
        with pytest.raises(AudioRefused, match="nothing between"):
            read_clip(path, 32_000, start=7_000.0)
    np.testing.assert_allclose(clip.samples, RAMP, atol=1e-4)


@pytest.mark.parametrize("claim", [0xFFFF_FFFF, 0xFFFF_FFDB, 0x8000_0000, 0x7FFF_FFFF, 0x7F00_0000, 64_002, 64_600])
def test_a_wav_that_does_not_know_its_length_returns_what_decodes(claim, tmp_path):
    path = wav_with(tmp_path / "liar.wav", RAMP, bytes=claim)
    with little_memory():
        np.testing.assert_allclose(read_clip(path, 32_000).samples, RAMP, atol=1e-4)


@pytest.mark.parametrize("claim", [2**36 - 1, 2**35, 1_500_000_000, 320_000, 40_000])
@pytest.mark.parametrize("name", ["liar.wav", "liar.flac"])
def test_a_header_that_promises_more_than_there_is_costs_no_memory(name, claim, tmp_path):
    path = tmp_path / name
    if name == "liar.flac":
        flac_claiming(path, RAMP, claim)
    else:
        claim = min(claim, 1_500_000_000)
        wav_with(path, RAMP, bytes=2 * claim)
    promised = rf"{name}: the file is truncated: its header promises {claim / 32_000:.2f} s of sound"
    with little_memory():
        for start in (0.0, 0.5):
            with pytest.raises(AudioUnreadable, match=promised + r", and nothing comes after 1\.00 s; copy it again"):
                read_clip(path, 32_000, start=start)
        assert len(read_clip(path, 32_000, start=0.5, end=1.0).samples) == 16_000  # what is there is there
        with pytest.raises(AudioUnreadable, match=promised):
            read_clip(path, 32_000, start=1.01, end=1.02)
        heard = []
        with pytest.raises(AudioUnreadable, match=promised):
            heard.extend(read_blocks(path, 32_000, block_seconds=0.25))
        assert not heard or sum(map(len, heard)) == 32_000


# What they promise: all that libsndfile reads, but for OGG and MP3, whose headers say nothing, and two rare ones.
TELLING = [
    "pcm8.wav", "pcm16.wav", "pcm24.wav", "float.wav", "double.wav", "extensible.wav", "alaw.wav", "ima.wav", "ms.wav",
    "gsm.wav", "big.rf64", "sony.w64", "lossless16.flac", "lossless24.flac", "apple.aiff", "float.aifc", "core.caf",
    "sun.au",
]  # fmt: skip


@pytest.mark.parametrize("name", [*TELLING, "plain.caf", "motorola.wav"])
def test_a_recording_that_was_cut_is_refused(name, sounds, tmp_path):
    path, more = tmp_path / name, {"endian": "BIG"} if name == "motorola.wav" else {}
    form, subtype, channels, _ = sounds.SNDFILE_ZOO.get(name, (name[-3:].upper(), "PCM_16", 1, 0))
    soundfile.write(path, sounds.chirp(8_000, 3.0, channels), 8_000, format=form, subtype=subtype, **more)
    whole = read_clip(path, 8_000)
    content = path.read_bytes()
    path.write_bytes(content[: 2 * len(content) // 3])
    found = r"the file is truncated: its header promises (3\.0|2\.9)|decoding failed"  # ADPCM comes in blocks
    with pytest.raises(AudioUnreadable, match=f"{name}: ({found})"):
        read_clip(path, 8_000)
    path.write_bytes(content + bytes(0 if form == "FLAC" else 1_000))  # more than was promised is no cut
    np.testing.assert_array_equal(read_clip(path, 8_000, end=2.9).samples, whole.samples[:23_200])


@pytest.mark.parametrize("name", ["a.ogg", "a.opus", "a.mp3"])
@pytest.mark.parametrize("share", [0.98, 0.5, 0.1])
def test_an_ogg_or_an_mp3_that_was_cut_is_refused(name, share, sounds, tmp_path):
    path, more = tmp_path / name, {"format": "OGG", "subtype": "OPUS"} if name == "a.opus" else {}
    soundfile.write(path, sounds.chirp(48_000, 6.0, 1), 48_000, **more)
    assert len(read_clip(path, 8_000).samples) >= 47_000
    content = path.read_bytes()
    path.write_bytes(content + bytes(128))  # a tag at the end is no cut
    assert len(read_clip(path, 8_000).samples) >= 47_000
    path.write_bytes(content[: round(share * len(content))])
    found = r"the file is truncated: according to its header \d+ bytes are missing; copy it again"
    with pytest.raises(AudioUnreadable, match=f"{name}: ({found}|this is)"):
        read_clip(path, 8_000)


def test_an_mp3_behind_a_tag_or_without_its_own_account_is_read(sounds, tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, sounds.chirp(32_000, 3.0, 1), 32_000)
    content = path.read_bytes()
    path.write_bytes(b"ID3\x04\0\0\0\0\x02\0" + bytes(256) + content)
    assert len(read_clip(path, 8_000).samples) >= 23_000
    path.write_bytes((b"ID3\x04\0\0\0\0\x02\0" + bytes(256) + content)[: len(content) // 2])
    with pytest.raises(AudioUnreadable, match="truncated"):
        read_clip(path, 8_000)
    mark = max(content.find(b"Xing"), content.find(b"Info"))
    assert mark > 0
    second = content.index(content[:2], mark)
    path.write_bytes(content[second : len(content) * 2 // 3])
    assert len(read_clip(path, 8_000).samples) > 5_000  # it says nothing of what is gone


def test_a_wav_of_a_recorder_that_lost_its_power_says_so(tmp_path):
    path = wav_with(tmp_path / "z.wav", RAMP, bytes=0)
    with pytest.raises(AudioUnreadable, match="promises no sound, but 64000 bytes follow"):
        read_clip(path, 32_000)


def test_a_flac_cut_between_two_of_its_frames_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 32_000), 8_000)
    content = (tmp_path / "a.flac").read_bytes()
    fifth = [at for at in range(len(content)) if content[at : at + 2] == b"\xff\xf8" and content[at + 4] == 4]
    (tmp_path / "a.flac").write_bytes(content[: fifth[0]])
    with pytest.raises(AudioUnreadable, match=r"promises 4\.00 s of sound, and nothing comes after 2\.05 s"):
        read_clip(tmp_path / "a.flac", 8_000)


def test_a_header_without_samples_is_refused(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 32_000)
    soundfile.write(tmp_path / "none.flac", np.zeros(0), 32_000)
    for name in ("none.wav", "none.flac"):
        with pytest.raises(AudioError, match=f"{name}: "):
            read_clip(tmp_path / name, 32_000)
        with pytest.raises(AudioError, match=f"{name}: "):
            list(read_blocks(tmp_path / name, 32_000))


def test_one_sample_is_a_recording(tmp_path):
    soundfile.write(tmp_path / "one.wav", [0.5], 32_000)
    assert read_clip(tmp_path / "one.wav", 32_000).samples.tolist() == [0.5]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("channels", value) for value in (0, 65, 1_024, 65_535)),
        *(("rate", value) for value in (0, 1, 999, 768_001, 2**31 - 1, 2**32 - 1)),
        *(("bits", value) for value in (0, 64, 65_535)),
        *(("codec", value) for value in (0, 3, 0x55, 0xFFFE)),
    ],
)
def test_header_fields_out_of_this_world_are_refused(field, value, tmp_path):
    path = wav_with(tmp_path / "odd.wav", RAMP, **{field: value})
    with little_memory(), pytest.raises(AudioError, match=r"odd\.wav: "):
        read_clip(path, 32_000)


# --- bombs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bomb(tmp_path_factory) -> Path:
    """Seventeen minutes in a few kilobytes: 130 MB once resampled."""
    path = tmp_path_factory.mktemp("bomb") / "bomb.flac"
    soundfile.write(path, np.zeros(8_000 * 1_020, np.int16), 8_000)
    return path


def test_a_recording_over_the_limit_costs_no_memory(bomb):
    assert bomb.stat().st_size < 200_000
    with little_memory(), pytest.raises(AudioRefused, match=r"bomb\.flac: .*longer than 1000 s"):
        read_clip(bomb, 32_000, limits=AudioLimits(seconds=1_000.0))


def test_a_recording_that_spoils_at_its_end_costs_no_memory(tmp_path):
    samples = np.zeros(8_000 * 1_020, np.float32)
    samples[-1] = np.nan
    soundfile.write(tmp_path / "late.wav", samples, 8_000, subtype="FLOAT")
    with little_memory(), pytest.raises(AudioRefused, match=r"late\.wav: the sample at 1020.000 s is nan"):
        read_clip(tmp_path / "late.wav", 32_000)


def test_blocks_and_segments_of_a_long_recording_cost_no_memory(bomb):
    with little_memory():
        assert sum(map(len, read_blocks(bomb, 32_000))) == 1_020 * 32_000
        assert read_clip(bomb, 32_000, start=1_000.0, end=1_010.0).seconds == 10.0


def test_many_channels_in_a_small_file_cost_no_memory(tmp_path):
    soundfile.write(tmp_path / "eight.flac", np.zeros((1_000_000, 8), np.int16), 32_000)
    with little_memory():
        assert read_clip(tmp_path / "eight.flac", 32_000).source_channels == 8


# --- other kinds of file ----------------------------------------------------------------------------------------------

NOT_SOUND: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("file,label\na.wav,kick\n" * 50), "text"),
    "utf16": (lambda path: path.write_text("Hello, world. " * 50, encoding="utf-16"), "text"),
    "html": (lambda path: path.write_text("<!DOCTYPE html><title>404</title>"), "a web page"),
    "png": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200)), "a PNG image"),
    "jpeg": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(200)), "a JPEG image"),
    "zip": (lambda path: zipfile.ZipFile(path, "w").close(), "a ZIP archive"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"RIFF" * 99)), "a gzip archive"),
    "pdf": (lambda path: path.write_bytes(b"%PDF-1.7\n" + bytes(99)), "a PDF document"),
    "npy": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + bytes(99)), "a NumPy array"),
    "lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "a Git LFS"),
    "zeros": (lambda path: path.write_bytes(bytes(5_000)), "of an unknown kind (first bytes 00 00"),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(3).bytes(5_000)), "of an unknown kind"),
}


@pytest.mark.parametrize("suffix", [".wav", ".MP3", ".m4a", ".au", ".snd", ".vox", ".gsm", ".raw", ".sd2", ""])
@pytest.mark.parametrize("kind", NOT_SOUND)
def test_what_is_not_sound_is_refused_by_what_it_is(kind, suffix, tmp_path):
    path = tmp_path / f"thing{suffix}"
    make, found = NOT_SOUND[kind]
    make(path)
    with pytest.raises(AudioUnreadable) as caught:
        read_clip(path, 32_000)
    message = str(caught.value)
    assert message.startswith(f"{path}: this is {found}")
    assert "supported are WAV, FLAC, OGG, Opus, MP3" in message
    assert "\n" not in message


def test_a_picture_without_sound_is_named(sounds, tmp_path):
    import av

    with av.open(str(tmp_path / "silent.mp4"), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 32
        container.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(video.encode(None))
    with pytest.raises(AudioUnreadable, match=r"silent\.mp4: the file contains no audio stream \(only video\)"):
        read_clip(tmp_path / "silent.mp4", 32_000)


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:3,\n{target}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{target}'\n",
        "[playlist]\nFile1={target}\nNumberOfEntries=1\n",
    ],
)
@pytest.mark.parametrize("suffix", [".wav", ".m3u8", ".m4a", ".ffconcat"])
def test_a_file_that_points_to_another_opens_no_other(playlist, suffix, seeds, tmp_path):
    target = tmp_path / "secret.aac"
    target.write_bytes(seeds["radio.aac"])
    path = tmp_path / f"list{suffix}"
    path.write_text(playlist.format(target=target))
    with pytest.raises(AudioUnreadable, match="not a recording"):
        read_clip(path, 32_000)


# --- names and places -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "-",
        "--help",
        "-a b.WAV",
        "ü ñ 音 😀.Wav",
        "no suffix",
        "a:b.wav",
        "http:x",
        "%d.wav",
        "a'b\"c.wav",
        "x.raw",
        "t\tb.au",
    ],
)
@pytest.mark.parametrize("seed", ["pcm16.wav", "phone.m4a"])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows forbids most of these names")
def test_a_name_is_only_a_name(name, seed, seeds, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(seeds[seed])
    monkeypatch.chdir(tmp_path)
    for path in (name, Path(name), tmp_path / name):
        assert read_clip(path, 32_000).seconds > 0.09


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are Unicode")
@pytest.mark.parametrize("seed", ["pcm16.wav", "phone.m4a"])
def test_a_name_that_is_no_unicode_works_and_is_printable(seed, seeds, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9\n.wav")
    path.write_bytes(seeds[seed])
    assert read_clip(path, 32_000).seconds > 0.09
    path.write_text("text")
    with pytest.raises(AudioUnreadable) as caught:
        read_clip(path, 32_000)
    str(caught.value).encode()
    assert "\n" not in str(caught.value)


def test_places_without_a_recording_are_named(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "empty.wav").touch()
    for name, found in [
        ("folder.wav", "this is a folder"),
        ("empty.wav", r"the file is empty \(0 bytes\)"),
        ("missing.wav", "there is no such file"),
        ("x" * 300, "it cannot be opened"),
        ("zero\0byte", "it cannot be opened"),
    ]:
        with pytest.raises(AudioUnreadable, match=found):
            read_clip(tmp_path / name, 32_000)
        with pytest.raises(AudioUnreadable, match=found):
            next(iter(read_blocks(tmp_path / name, 32_000)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_or_a_device_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "endless.wav").symlink_to("/dev/zero")
    for name in ("pipe.wav", "endless.wav"):
        with pytest.raises(AudioUnreadable, match=rf"{name}: this is a pipe or a device"):
            read_clip(tmp_path / name, 32_000)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_without_permission_is_named(seeds, tmp_path):
    path = tmp_path / "locked.wav"
    path.write_bytes(seeds["pcm16.wav"])
    path.chmod(0)
    with pytest.raises(AudioUnreadable, match=r"locked\.wav: it cannot be opened \(Permission denied\)"):
        read_clip(path, 32_000)


# --- PyAV absent, and everybody quiet ---------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [False, True])
def test_without_pyav_the_message_says_what_to_install(broken, seeds, tmp_path, monkeypatch):
    if broken:  # installed, but its library does not load
        (tmp_path / "av").mkdir()
        (tmp_path / "av" / "__init__.py").write_text(
            "raise OSError('libavcodec.so.62: cannot open shared object file')"
        )
        monkeypatch.syspath_prepend(tmp_path)
        for name in [name for name in sys.modules if name.split(".")[0] == "av"]:
            monkeypatch.delitem(sys.modules, name)
    else:
        monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "phone.m4a").write_bytes(seeds["phone.m4a"])
    (tmp_path / "fine.ogg").write_bytes(seeds["vorbis.ogg"])
    (tmp_path / "text.wav").write_text("text")
    assert read_clip(tmp_path / "fine.ogg", 32_000).seconds > 0.09
    for name, found in [("phone.m4a", "an MP4 or M4A recording"), ("text.wav", "text")]:
        with pytest.raises(AudioUnreadable, match=rf"{name}: this is {found}.*pip install 'ossicle\[media\]'"):
            read_clip(tmp_path / name, 32_000)


def test_libraries_write_nothing_to_the_terminal(seeds, tmp_path):
    """In a process of its own: mpg123 and FFmpeg write from C, past Python."""
    mp3, m4a = seeds["layer3.mp3"], seeds["phone.m4a"]
    (tmp_path / "junk.mp3").write_bytes(mp3 + b"APETAGEX" + bytes(500) + mp3[200:] + b"TAG" * 99)
    (tmp_path / "torn.mp3").write_bytes(mp3[: len(mp3) // 2] + bytes(700) + mp3[len(mp3) // 3 :])
    (tmp_path / "headless.MP3").write_bytes(b"z" + mp3[1:])
    (tmp_path / "layer1.wav").write_bytes("Hello, world".encode("utf-16") * 300)
    (tmp_path / "torn.m4a").write_bytes(m4a[:600] + bytes(300) + m4a[900:])
    program = (
        "import sys\nfrom ossicle.audio import read_clip\nfrom ossicle.errors import AudioError\n"
        "for path in sys.argv[1:]:\n"
        "    for start in (0.0, 0.05):\n"
        "        try: read_clip(path, 32_000, start=start)\n"
        "        except AudioError: pass\n"
        "print('still heard', file=sys.stderr)\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (result.stdout, result.stderr) == ("", "still heard\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_during_a_hush_can_hush_and_be_heard():
    program = (
        "import os, sys, threading\nfrom ossicle.audio.hush import HUSH\n"
        "go, done = threading.Event(), threading.Event()\n"
        "def hold():\n    with HUSH, HUSH.lock:\n        go.set(); done.wait()\n"
        "holder = threading.Thread(target=hold); holder.start(); go.wait()\n"
        "if os.fork() == 0:\n    with HUSH: os.write(2, b'lost')\n    os.write(2, b'child '); os._exit(0)\n"
        "os.wait(); os.write(2, b'lost'); done.set(); holder.join(); os.write(2, b'parent')\n"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr == "child parent"


def test_reading_opens_and_closes_the_same_number_of_files(seeds, tmp_path):
    for name, content in seeds.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "torn.flac").write_bytes(seeds["lossless16.flac"][:3_000])
    (tmp_path / "torn.m4a").write_bytes(seeds["phone.m4a"][:600])
    opened = lambda: len(os.listdir("/proc/self/fd"))  # noqa: E731
    if not Path("/proc/self/fd").exists():
        pytest.skip("counts descriptors where Linux lists them")
    for turn in range(3):
        for path in tmp_path.iterdir():
            try:
                read_clip(path, 32_000, start=0.01)
            except AudioError:
                pass
        gc.collect()
        if turn == 0:
            before = opened()
    assert opened() == before
