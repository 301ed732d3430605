import shutil

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.audio import AudioLimits, as_clip, read_blocks, read_clip, resample
from ossicle.audio import clip as clip_module
from ossicle.errors import AudioRefused, AudioUnreadable

EXACT = [
    "pcm8.wav", "pcm16.wav", "pcm24.wav", "float.wav", "double.wav", "extensible.wav", "alaw.wav", "big.rf64",
    "sony.w64", "lossless16.flac", "lossless24.flac", "apple.aiff", "float.aifc", "core.caf", "sun.au", "sphere.sph",
    "creative.voc",
]  # fmt: skip
LOSSY = [
    "ima.wav", "ms.wav", "gsm.wav", "vorbis.ogg", "voice.opus", "layer3.mp3", "phone.m4a", "apple.m4a",
    "browser.webm", "film.mp4", "archive.mka", "radio.aac", "disc.ac3",
]  # fmt: skip
EVERY = EXACT + LOSSY


def channels_of(sounds, name: str) -> int:
    return sounds.SNDFILE_ZOO[name][2] if name in sounds.SNDFILE_ZOO else sounds.MEDIA_ZOO[name][1]


# --- formats ----------------------------------------------------------------------------------------------------------


def test_the_lists_name_every_format_that_the_zoo_writes(zoo):
    assert sorted(EVERY) == sorted(zoo)


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_format_returns_the_mean_over_its_channels(name, zoo, sounds):
    clip = read_clip(zoo[name], 48_000)
    channels, step = sounds.SNDFILE_ZOO[name][2:]
    expected = sounds.chirp(48_000, 2.0, channels).mean(axis=1)
    assert (clip.rate, clip.source_rate, clip.source_channels) == (48_000, 48_000, channels)
    assert clip.samples.shape == expected.shape
    assert np.abs(clip.samples - expected).max() <= step


@pytest.mark.parametrize("name", LOSSY)
def test_a_lossy_format_returns_the_sound(name, zoo, sounds):
    clip = read_clip(zoo[name], 48_000)
    channels = channels_of(sounds, name)
    expected = sounds.chirp(48_000, 2.0, channels).mean(axis=1)
    assert (clip.source_rate, clip.source_channels) == (48_000, channels)
    assert 0 <= len(clip.samples) - len(expected) <= 2_112  # an encoder's delay, or a block filled up
    delay = np.argmax([clip.samples[lag : lag + 9_000] @ expected[:9_000] for lag in range(1_100)])
    aligned = clip.samples[delay : delay + 90_000]
    assert np.corrcoef(aligned, expected[:90_000])[0, 1] > 0.97


@pytest.mark.parametrize("name", EVERY)
def test_every_format_is_resampled_to_the_rate_asked_for(name, zoo):
    whole = read_clip(zoo[name], 48_000)
    np.testing.assert_array_equal(read_clip(zoo[name], 32_000).samples, resample(whole.samples, 48_000, 32_000))


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [32_000, 48_000])
@pytest.mark.parametrize("name", EVERY)
def test_blocks_join_to_the_clip_bit_for_bit(name, rate, zoo, monkeypatch):
    monkeypatch.setattr("ossicle.audio.sndfile.BLOCK_VALUES", 8_192)  # decode in many pieces
    blocks = list(read_blocks(zoo[name], rate, block_seconds=0.3))
    assert {len(block) for block in blocks[:-1]} == {round(0.3 * rate)}
    assert 0 < len(blocks[-1]) <= round(0.3 * rate)
    monkeypatch.undo()
    np.testing.assert_array_equal(np.concatenate(blocks), read_clip(zoo[name], rate).samples)


@pytest.mark.parametrize("subtype", ["OPUS", "VORBIS"])
def test_the_last_page_of_an_ogg_is_read_like_the_rest(subtype, tmp_path, sounds, monkeypatch):
    # libsndfile 1.2.2 lands elsewhere when it seeks in there, and soundfile seeks after each read.
    path = tmp_path / "odd.ogg"
    soundfile.write(path, sounds.chirp(48_000, 159_844 / 48_000), 48_000, format="OGG", subtype=subtype)
    whole = soundfile.read(path, dtype="float32")[0]
    assert len(whole) == 159_844
    for values in (64, 1_024, 4_096):
        monkeypatch.setattr("ossicle.audio.sndfile.BLOCK_VALUES", values)
        np.testing.assert_array_equal(read_clip(path, 48_000).samples, whole)
        for start in (159_743, 159_800, 100_000):
            np.testing.assert_array_equal(read_clip(path, 48_000, start=start / 48_000).samples, whole[start:])


def test_blocks_may_be_abandoned_and_the_file_is_closed(zoo, tmp_path):
    path = shutil.copy(zoo["pcm16.wav"], tmp_path)
    blocks = read_blocks(path, 32_000, block_seconds=0.1)
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]


def test_blocks_of_no_length_are_the_callers_slip(zoo):
    with pytest.raises(ValueError, match="block_seconds"):
        read_blocks(zoo["pcm16.wav"], 32_000, block_seconds=0.0)


# --- segments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_segment_is_the_slice_of_the_whole(name, rate, zoo):
    whole = read_clip(zoo[name], rate).samples
    for start, end in [(0.0, 0.5), (0.5, 1.25), (1.3337, 1.9), (1.99, None), (0.00001, 0.7), (1.5, 99.0)]:
        clip = read_clip(zoo[name], rate, start=start, end=end)
        expected = whole[round(start * rate) : None if end is None else round(end * rate)]
        assert clip.samples.shape == expected.shape
        np.testing.assert_allclose(clip.samples, expected, atol=1e-5)


@given(data=st.data(), source_rate=st.sampled_from([8_000, 22_050, 31_999, 44_100, 96_000]))
@settings(max_examples=40, deadline=None)
def test_a_segment_between_any_two_samples_is_the_slice_of_the_whole(data, source_rate, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"noise{source_rate}.flac"
    if not path.exists():
        noise = 0.2 * np.random.default_rng(0).standard_normal(3 * source_rate)
        soundfile.write(path, noise, source_rate, subtype="PCM_24")
    whole = read_clip(path, 32_000).samples
    first = data.draw(st.integers(0, len(whole) - 1))
    last = data.draw(st.integers(first + 1, len(whole)))
    segment = read_clip(path, 32_000, start=first / 32_000, end=last / 32_000).samples
    np.testing.assert_allclose(segment, whole[first:last], atol=1e-5)


@pytest.mark.parametrize("name", ["vorbis.ogg", "voice.opus", "layer3.mp3", "lossless24.flac"])
def test_a_long_compressed_recording_is_cut_where_it_was_asked(name, tmp_path, sounds):
    path = tmp_path / name
    form, subtype, *_ = sounds.SNDFILE_ZOO[name]
    soundfile.write(path, sounds.chirp(48_000, 15.0), 48_000, format=form, subtype=subtype)
    whole = read_clip(path, 48_000).samples
    for start in np.random.default_rng(0).uniform(0, 14, 8):
        segment = read_clip(path, 48_000, start=start, end=start + 0.5).samples
        first = round(start * 48_000)
        np.testing.assert_allclose(segment, whole[first : round((start + 0.5) * 48_000)], atol=1e-5)


@pytest.mark.parametrize("name", ["pcm16.wav", "lossless16.flac", "voice.opus", "layer3.mp3", "gsm.wav", "phone.m4a"])
def test_a_segment_behind_the_end_is_refused_and_says_so(name, zoo):
    with pytest.raises(AudioRefused, match=rf"{name}: .*nothing between 5 s and 6 s"):
        read_clip(zoo[name], 32_000, start=5.0, end=6.0)
    with pytest.raises(AudioRefused, match="nothing between 1e[+]200 s and its end"):
        read_clip(zoo[name], 32_000, start=1e200)


@pytest.mark.parametrize(
    ("start", "end"), [(-0.1, None), (1.0, 1.0), (2.0, 1.0), (np.nan, None), (0.0, np.nan), (np.inf, None)]
)
def test_a_segment_that_makes_no_sense_is_the_callers_slip(start, end, zoo):
    with pytest.raises(ValueError, match="start"):
        read_clip(zoo["pcm16.wav"], 32_000, start=start, end=end)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_less_than_one_sample_at_the_new_rate_is_refused(tmp_path):
    soundfile.write(tmp_path / "blip.wav", [0.5], 96_000)
    with pytest.raises(AudioRefused, match="no samples"):
        read_clip(tmp_path / "blip.wav", 16_000)
    with pytest.raises(AudioRefused, match="shorter than one sample"):
        as_clip(np.full(1, 0.5), 96_000, rate=16_000)


def test_length_is_limited_to_the_sample_and_blocks_are_not(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(32_000), 32_000)
    limits = AudioLimits(seconds=1.0)
    assert read_clip(tmp_path / "a.wav", 32_000, limits=limits).seconds == 1.0
    assert read_clip(tmp_path / "a.wav", 16_000, limits=limits).seconds == 1.0
    soundfile.write(tmp_path / "b.wav", np.zeros(32_001), 32_000)
    with pytest.raises(AudioRefused, match=r"b\.wav: .*longer than 1 s"):
        read_clip(tmp_path / "b.wav", 32_000, limits=limits)
    assert read_clip(tmp_path / "b.wav", 32_000, start=0.5, limits=limits).seconds == pytest.approx(0.5, abs=1e-4)
    assert sum(map(len, read_blocks(tmp_path / "b.wav", 32_000, limits=limits))) == 32_001


@pytest.mark.parametrize(("channels", "allowed"), [(1, 1), (2, 2), (64, 64), (2, 1), (65, 64)])
def test_channels_are_limited(channels, allowed, tmp_path):
    path = tmp_path / "many.wav"
    soundfile.write(path, np.full((100, channels), 0.25), 32_000)
    limits = AudioLimits(channels=allowed)
    if channels <= allowed:
        np.testing.assert_array_equal(read_clip(path, 32_000, limits=limits).samples, 0.25)
    else:
        with pytest.raises(AudioRefused, match=f"many.wav: there are {channels} channels; allowed are 1 to {allowed}"):
            read_clip(path, 32_000, limits=limits)


@pytest.mark.parametrize("rate", [999, 1_000, 768_000, 768_001])
def test_rates_are_limited(rate, tmp_path):
    soundfile.write(tmp_path / "odd.wav", np.full(2_000, 0.25), rate)
    if 1_000 <= rate <= 768_000:
        assert read_clip(tmp_path / "odd.wav", 32_000).source_rate == rate
    else:
        with pytest.raises(AudioRefused, match=f"odd.wav: the rate is {rate} Hz; allowed are 1000 to 768000 Hz"):
            read_clip(tmp_path / "odd.wav", 32_000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.1e10, -3e38, 1e300])
@pytest.mark.parametrize("at", [0, 70_000, 99_999])
def test_a_sample_that_would_poison_the_features_is_refused_with_its_time(value, at, tmp_path):
    samples = np.zeros((100_000, 2))
    samples[at, 1] = value
    soundfile.write(tmp_path / "bad.wav", samples, 32_000, subtype="DOUBLE")
    found = rf"the sample at {at / 32_000:.3f} s is .*; allowed are finite samples up to 1e\+10"
    with pytest.raises(AudioRefused, match="bad.wav: " + found):
        read_clip(tmp_path / "bad.wav", 44_100)
    with pytest.raises(AudioRefused, match="bad.wav: " + found):
        list(read_blocks(tmp_path / "bad.wav", 32_000, block_seconds=0.5))
    with pytest.raises(AudioRefused, match="the array: " + found):
        as_clip(samples, 32_000, rate=32_000)


def test_a_long_clip_is_decoded_twice_and_equals_one_decoded_once(zoo, monkeypatch):
    once = read_clip(zoo["vorbis.ogg"], 44_100, start=0.2)
    monkeypatch.setattr(clip_module, "HELD_SAMPLES", 10_000)
    twice = read_clip(zoo["vorbis.ogg"], 44_100, start=0.2)
    np.testing.assert_array_equal(twice.samples, once.samples)


@pytest.mark.parametrize("length", [20_000, 60_000])
def test_a_file_that_changes_between_the_two_passes_is_noticed(length, tmp_path, monkeypatch):
    path = tmp_path / "growing.wav"
    soundfile.write(path, np.zeros(40_000), 32_000)
    monkeypatch.setattr(clip_module, "HELD_SAMPLES", 10_000)
    fill = clip_module.fill

    def change_then_fill(out, pieces, name):
        soundfile.write(path, np.zeros(length), 32_000)
        with clip_module.open_recording(path, AudioLimits()) as recording:
            fresh = clip_module.segment(recording, 32_000, start=0.0, end=None, limits=AudioLimits())
            fill(out, fresh, name)

    monkeypatch.setattr(clip_module, "fill", change_then_fill)
    with pytest.raises(AudioUnreadable, match=r"growing\.wav: the file changed while it was read"):
        read_clip(path, 32_000)


@pytest.mark.parametrize(
    "slip",
    [{"seconds": 0.0}, {"seconds": np.nan}, {"channels": 0}, {"min_rate": 0}, {"max_rate": 10}, {"peak": 1e20}],
)
def test_limits_that_make_no_sense_are_the_callers_slip(slip):
    with pytest.raises(ValueError, match=next(iter(slip))):
        AudioLimits(**slip)


@pytest.mark.parametrize("rate", [0, -1, 999, 1_000_000])
def test_a_target_rate_that_makes_no_sense_is_the_callers_slip(rate, zoo):
    with pytest.raises(ValueError, match="rate"):
        read_clip(zoo["pcm16.wav"], rate)
    with pytest.raises(ValueError, match="rate"):
        as_clip(np.zeros(8), 32_000, rate=rate)


# --- samples from Python ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32"])
def test_whole_numbers_are_scaled_to_full_scale(dtype):
    info = np.iinfo(dtype)
    middle = (int(info.max) + int(info.min) + 1) // 2
    clip = as_clip(np.array([info.min, middle, info.max], dtype), 32_000, rate=32_000)
    np.testing.assert_allclose(clip.samples, [-1.0, 0.0, 1.0], atol=2.0 ** (1 - info.bits) if info.bits < 32 else 1e-7)
    assert np.abs(clip.samples).max() <= 1.0


def test_an_array_gives_the_same_clip_as_the_file_it_came_from(zoo, sounds):
    samples, rate = soundfile.read(zoo["pcm16.wav"], dtype="int16")
    np.testing.assert_array_equal(
        as_clip(samples, rate, rate=32_000).samples, read_clip(zoo["pcm16.wav"], 32_000).samples
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floating_point_is_taken_as_it_is_and_channels_are_averaged(dtype):
    clip = as_clip(np.array([[0.5, 0.25], [-1.0, 0.5]], dtype), 32_000, rate=32_000)
    np.testing.assert_array_equal(clip.samples, np.float32([0.375, -0.25]))
    assert clip.source_channels == 2


def test_a_list_a_read_only_and_a_strided_array_are_taken():
    assert as_clip([0.1, 0.2], 32_000, rate=32_000).samples.tolist() == np.float32([0.1, 0.2]).tolist()
    frozen = np.zeros((10, 2), np.float32)
    frozen.flags.writeable = False
    assert len(as_clip(frozen[::-2], 48_000, rate=32_000).samples) == 3


def test_the_callers_array_is_neither_changed_nor_shared():
    samples = np.linspace(0, 1, 10, dtype=np.float32)
    clip = as_clip(samples, 32_000, rate=32_000)
    clip.samples[:] = 7
    np.testing.assert_array_equal(samples, np.linspace(0, 1, 10, dtype=np.float32))


@pytest.mark.parametrize(
    ("samples", "found"),
    [
        (np.zeros(()), r"\(\)"),
        (np.zeros((2, 3, 4)), r"\(2, 3, 4\)"),
        (np.zeros((2, 48_000)), "the time comes first"),
        (np.zeros(5, np.int64), "int64"),
        (np.zeros(5, bool), "bool"),
        (np.zeros(5, complex), "complex"),
        (np.array(["a"]), "U1"),
        (None, "shape"),
    ],
)
def test_what_is_not_audio_is_the_callers_slip(samples, found):
    with pytest.raises(ValueError, match=found):
        as_clip(samples, 32_000, rate=32_000)


@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_an_empty_array_is_refused(shape):
    with pytest.raises(AudioRefused, match="contains no samples"):
        as_clip(np.zeros(shape), 32_000, rate=32_000)


def test_an_array_lies_within_the_limits_too():
    with pytest.raises(AudioRefused, match="the array: the recording is longer than 0.5 s"):
        as_clip(np.zeros(32_000), 32_000, rate=32_000, limits=AudioLimits(seconds=0.5))
    with pytest.raises(AudioRefused, match="the array: the rate is 10 Hz"):
        as_clip(np.zeros(100), 10, rate=32_000)
    with pytest.raises(AudioRefused, match="the array: there are 65 channels"):
        as_clip(np.zeros((100, 65)), 32_000, rate=32_000)
