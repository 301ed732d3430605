"""Damaged recordings: whatever the bytes, a finite clip within the limits or one clear error, soon, and no noise.

OSSICLE_MUTATIONS=100000 makes a long run of this file; benchmarks/mutations.py makes one and keeps what it found.
"""

import logging
import os
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("resource", reason="peak memory is read where the system tells it")
CASES = int(os.environ.get("OSSICLE_MUTATIONS", "2000"))
DAMAGE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("damage.py"))))

# All randomness of a case comes from one drawn seed: Hypothesis then spends its time on the decoders.
damage = st.tuples(st.integers(0, 2**32 - 1), st.sampled_from(DAMAGE.KINDS))


def test_damaged_recordings_give_a_finite_clip_or_an_error(seeds, tmp_path, capfd, caplog):
    caplog.set_level(logging.ERROR, "ossicle")  # pytest would keep every remark, and their memory would be a file's
    names = sorted(seeds)
    outcomes = {"clip": 0, "error": 0}

    @settings(
        max_examples=CASES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(name=st.sampled_from(names), other=st.sampled_from(names), acts=st.lists(damage, min_size=1, max_size=3))
    def check(name, other, acts):
        content = seeds[name]
        for seed, kind in acts:
            content = DAMAGE.damaged(content, seeds[other], kind, np.random.default_rng(seed))
        path = tmp_path / name
        path.write_bytes(content)
        in_blocks = acts[0][0] % 4 == 0  # they cost as much again
        outcomes["clip" if DAMAGE.decode(path, in_blocks=in_blocks).clip else "error"] += 1

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
    DAMAGE.decode(path)


TELLING = (".wav", ".rf64", ".w64", ".flac", ".aiff", ".aifc", ".caf", ".au")


@pytest.mark.parametrize("sixtyfourths", range(0, 64, 3))
def test_a_recording_cut_anywhere_is_an_error_where_its_header_tells_and_else_its_beginning(
    sixtyfourths, seeds, tmp_path
):
    for name, content in seeds.items():
        path = tmp_path / name
        path.write_bytes(content[: len(content) * sixtyfourths // 64])
        clip = DAMAGE.decode(path).clip
        # Where a header says how much there should be, less is an error; a tenth of these short ones may be missing.
        assert clip is None or clip.seconds > 0.085 or not name.endswith(TELLING)
