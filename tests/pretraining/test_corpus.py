"""From recordings to clips, near-duplicates, archives of games, mixtures; nothing here needs a network or a package."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pretraining.archives import open_cat, open_rcc, open_wad, open_zip
from pretraining.clips import LOUDNESS, RATE, clips_of, loudness
from pretraining.duplicates import fingerprint, near_duplicates
from pretraining.labels import topic_of, weak_label
from pretraining.manifest import Row, part_of, read_rows, table, write_rows
from tests.pretraining.conftest import melody

from pretraining import midi


def row(**changes: object) -> Row:
    values = {
        "file": "clips/x/a.flac",
        "package": "x",
        "version": "1",
        "path": "usr/share/a.wav",
        "sha256": "0",
        "license": "MIT",
        "authors": "Ann",
        "kind": "effects",
        "label": "a",
        "topic": "",
        "part": "train",
        "start": 0.0,
        "seconds": 3.0,
    }
    return Row(**{**values, **changes})  # type: ignore[arg-type]


# --- near-duplicates --------------------------------------------------------------------------------------------------


def encoded(samples: np.ndarray) -> np.ndarray:
    held = io.BytesIO()
    soundfile.write(held, samples, RATE, format="OGG", subtype="VORBIS")
    held.seek(0)
    return soundfile.read(held, dtype="float32")[0]


def test_a_quieter_copy_cut_elsewhere_and_encoded_anew_is_a_near_duplicate() -> None:
    sound = melody(1, seconds=4)
    copies = [0.2 * sound, sound[8_111:], encoded(0.5 * sound[5_000:-20_000])]
    for copy in copies:
        assert near_duplicates([fingerprint(sound), fingerprint(copy)]) == {1: 0}


def test_recordings_of_the_same_kind_are_no_near_duplicates() -> None:
    prints = [fingerprint(melody(seed)) for seed in range(12)]
    noises = [
        fingerprint(0.1 * np.random.default_rng(seed).standard_normal(96_000).astype(np.float32)) for seed in (1, 2)
    ]
    assert near_duplicates([*prints, *noises]) == {}


def test_what_is_known_stays_and_what_repeats_it_goes() -> None:
    prints = [fingerprint(melody(seed)) for seed in (3, 3, 4, 3, 4)]
    assert near_duplicates(prints, known=2) == {3: 0, 4: 2} or near_duplicates(prints, known=2) == {3: 1, 4: 2}


def test_a_clip_that_is_not_checked_is_compared_with_the_known_ones_alone() -> None:
    prints = [fingerprint(melody(seed)) for seed in (5, 6, 6, 5)]
    assert near_duplicates(prints, known=1, checked=[True, True, False, False]) == {3: 0}


def test_a_click_and_silence_have_fingerprints() -> None:
    click = np.zeros(200, np.float32)
    click[100] = 0.5
    assert near_duplicates([fingerprint(click), fingerprint(np.zeros(32_000, np.float32))]) == {}


# --- clips ------------------------------------------------------------------------------------------------------------


def cut(path: Path, most: int = 3) -> list[tuple[float, np.ndarray]]:
    return list(clips_of(path, most=most, draw=np.random.default_rng(0)))


def test_a_short_recording_is_one_clip_of_the_wanted_loudness(recording: Path) -> None:
    ((_, samples),) = cut(recording)
    assert loudness(samples) == pytest.approx(LOUDNESS, abs=0.7)


def test_a_sine_of_997_hertz_at_full_scale_has_minus_three_lufs() -> None:
    sine = np.sin(2 * np.pi * 997 * np.arange(3 * RATE) / RATE).astype(np.float32)
    assert loudness(sine) == pytest.approx(-3.01, abs=0.1)


def test_a_long_recording_gives_so_many_clips_of_ten_seconds_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate([melody(seed, seconds=9) for seed in range(6)]), RATE)
    clips = cut(path, most=4)
    assert len(clips) == 4
    starts = [start for start, _ in clips]
    assert starts == sorted(starts)
    assert all(later - earlier >= 9 for earlier, later in zip(starts, starts[1:], strict=False))
    assert all(9 < len(samples) / RATE <= 10 for _, samples in clips)


def test_silence_gives_no_clip_and_silent_ends_go(tmp_path: Path) -> None:
    path = tmp_path / "quiet.wav"
    soundfile.write(path, np.zeros(RATE), RATE)
    assert cut(path) == []
    sound = np.concatenate([np.zeros(RATE), melody(1), np.zeros(RATE)])
    soundfile.write(path, np.where(np.abs(sound) < 0.01, 0, sound), RATE)
    ((start, samples),) = cut(path)
    assert start > 0.9
    assert len(samples) < 3.1 * RATE


# --- archives ---------------------------------------------------------------------------------------------------------


def wave_bytes(seconds: float = 0.1) -> bytes:
    held = io.BytesIO()
    soundfile.write(held, np.zeros(round(8000 * seconds)), 8000, format="WAV")
    return held.getvalue()


def test_sounds_are_found_in_archives_of_games(tmp_path: Path) -> None:
    sound = wave_bytes()
    with zipfile.ZipFile(tmp_path / "a.pk3", "w") as archive:
        archive.writestr("sound/dog.wav", sound)
        archive.writestr("readme.txt", "no")
    assert list(open_zip(tmp_path / "a.pk3")) == [("sound/dog.wav", sound)]

    lump = struct.pack("<HHI", 3, 11_025, 4) + b"\x80\x90\x80\x70"
    data = b"IWAD" + struct.pack("<ii", 2, 12 + len(lump)) + lump
    data += struct.pack("<ii8s", 12, len(lump), b"DSPISTOL") + struct.pack("<ii8s", 12, 4, b"E1M1")
    (tmp_path / "a.wad").write_bytes(data)
    ((name, content),) = open_wad(tmp_path / "a.wad")
    samples, rate = soundfile.read(io.BytesIO(content))
    assert (name, rate, len(samples)) == ("DSPISTOL.wav", 11_025, 4)

    (tmp_path / "a.cat").write_bytes(b"x" * 30 + sound + b"name" + sound)
    assert [content for _, content in open_cat(tmp_path / "a.cat")] == [sound, sound]


def test_a_resource_file_of_qt_is_a_tree_of_names(tmp_path: Path) -> None:
    sound = wave_bytes()
    names, at = b"", []
    for name in ("voices", "dog.wav"):
        at.append(len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    tree = struct.pack(">iHii", 0, 2, 1, 1) + struct.pack(">iHii", at[0], 2, 1, 2)
    tree += struct.pack(">iHHHi", at[1], 0, 0, 0, 0)
    contents = struct.pack(">i", len(sound)) + sound
    head = b"qres" + struct.pack(">iiii", 1, 20, 20 + len(tree), 20 + len(tree) + len(contents))
    (tmp_path / "a.rcc").write_bytes(head + tree + contents + names)
    assert list(open_rcc(tmp_path / "a.rcc")) == [("voices/dog.wav", sound)]


def test_a_file_that_only_has_the_suffix_holds_nothing(tmp_path: Path) -> None:
    for opener in (open_zip, open_wad, open_rcc, open_cat):
        (tmp_path / "a").write_bytes(b"something else altogether")
        assert list(opener(tmp_path / "a")) == []


# --- labels, rows -----------------------------------------------------------------------------------------------------


def test_a_name_is_a_label_and_its_folder_a_topic() -> None:
    assert weak_label("usr/share/x/01/dogBark-03.wav") == "dog bark"
    assert topic_of("usr/share/x/sounds/dogBark-03.wav", "effects") == "animal"
    assert topic_of("usr/share/x/vehicles/big_one.ogg", "mixed") == "vehicle"
    assert topic_of("usr/share/x/stamps/animals/dog_desc_de.ogg", "mixed") == "speech"
    assert topic_of("usr/share/x/a/b.ogg", "effects") == ""


def test_sounds_of_one_name_lie_in_one_part() -> None:
    parts = [part_of("x", f"sound {number}") for number in range(2000)]
    assert 0.03 < parts.count("validation") / len(parts) < 0.07
    assert part_of("x", weak_label("a/bark1.wav")) == part_of("x", weak_label("a/bark2.wav"))


def test_a_manifest_comes_back_and_its_tables_add_up(tmp_path: Path) -> None:
    rows = [row(), row(license="CC0-1.0", seconds=7.5, authors="Günter"), row(seconds=1.5)]
    write_rows(tmp_path / "manifest.jsonl", rows)
    assert read_rows(tmp_path / "manifest.jsonl") == rows
    assert table(rows, "license").splitlines()[2:] == [
        "| CC0-1.0 | 1 | 0.00 |",
        "| MIT | 2 | 0.00 |",
        "| **all** | 3 | 0.00 |",
    ]


# --- notes --------------------------------------------------------------------------------------------------


def test_a_score_is_the_same_bytes_for_the_same_seed() -> None:
    def score(seed: int) -> bytes:
        made = midi.Score()
        midi.ensemble(made, 0.0, 4.0, np.random.default_rng(seed))
        return made.to_bytes()

    assert score(1) == score(1) != score(2)
    assert score(1)[:4] == b"MThd"


@pytest.mark.parametrize(("value", "expected"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x81\0"), (16384, b"\x81\x80\0")])
def test_a_midi_number_has_as_many_bytes_as_it_needs(value: int, expected: bytes) -> None:
    assert midi.variable_length(value) == expected
