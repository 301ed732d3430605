"""The features of a corpus, the mixtures made of them, and a student that goes on after a stop to the same weights."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from pretraining.features import COLUMN, MELS, Store, save, store_frames
from pretraining.manifest import Row
from pretraining.mixtures import FRAMES, RATES, Mixer, bins_below, paced, shifted
from pretraining.student import Student
from pretraining.teacher import Teacher
from tests.pretraining.conftest import melody
from tests.pretraining.test_corpus import row
from tests.pretraining.test_teacher import WEIGHTS, needs_weights

from ossicle.frontend import frontend_config, log_mel
from pretraining import train

CLIPS = 6


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, list[Row]]:
    """Six recordings, the last of them of the validation part."""
    rows = []
    for number in range(CLIPS):
        file = f"{number}.flac"
        soundfile.write(tmp_path / file, melody(number, seconds=0.3 + 1.3 * number)[: None if number else 3200], 32_000)
        part = "validation" if number == CLIPS - 1 else "train"
        rows.append(row(file=file, part=part, topic="bell" if number % 2 else "door"))
    return tmp_path, rows


@pytest.fixture
def folder(corpus: tuple[Path, list[Row]]) -> Path:
    """A store of their features, with a speech encoder's answers to the first and third that count its columns."""
    folder, rows = corpus
    store_frames(folder, folder, rows)
    clips = Store.open(folder)
    lengths = np.array([clips.length(clip) // COLUMN if clip in (0, 2) else 0 for clip in range(CLIPS)])
    columns = np.concatenate([np.arange(count) + 100 * clip for clip, count in enumerate(lengths)])
    (folder / "speech.f16").write_bytes(np.repeat(columns[:, None], 768, 1).astype(np.float16).tobytes())
    save(folder / "speech.npz", starts=np.cumsum(lengths) - lengths, lengths=lengths)
    return folder


def test_a_store_holds_the_log_mel_of_every_clip(folder: Path) -> None:
    store = Store.open(folder)
    assert len(store) == CLIPS and store.length(0) == 20  # the shortest is followed by silence up to 0.2 s
    wave = torch.from_numpy(soundfile.read(folder / "3.flac", dtype="float32")[0])
    expected = log_mel(wave[None], frontend_config("passt"))[0].T.numpy()
    power = store.power(3, 0, store.length(3))
    np.testing.assert_allclose((np.log(power) + 4.5) / 5, expected, atol=1e-3)


def mixer(folder: Path, *, change: bool = True, seed: int = 7, balance: float = 0.5, row: float = 0.0) -> Mixer:
    store, groups = Store.open(folder), np.arange(CLIPS) > 0
    return Mixer(store, np.arange(CLIPS - 1), groups, seed=seed, change=change, balance=balance, row=row)


def test_a_mixture_is_a_function_of_seed_and_numbers(folder: Path) -> None:
    forwards = [mixer(folder).clip(3, number).mel for number in range(8)]
    backwards = [mixer(folder).clip(3, number).mel for number in reversed(range(8))]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    assert not np.array_equal(forwards[0], forwards[1])
    assert not np.array_equal(forwards[0], mixer(folder, seed=8).clip(3, 0).mel)


def test_a_mixture_of_one_clip_is_the_clip_at_another_level(folder: Path) -> None:
    store, made = Store.open(folder), mixer(folder, change=False)
    single = next(one for one in map(made.clip, range(60)) if one.clips == (3,))
    power = np.exp(single.mel.T * 5 - 4.5) - 1e-5
    loud = power.max(1) > 1e-3
    sound = store.power(3, 0, store.length(3))
    at = next(at for at in range(0, FRAMES, COLUMN) if power[at : at + len(sound)].sum() > 0.999 * power.sum())
    ratio = (power[at : at + len(sound)].sum(1) / sound.sum(1))[loud[at : at + len(sound)]]
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=2e-2)
    assert 10**-1.2 * 0.98 <= np.median(ratio) <= 10**0.3 * 1.02


def test_answers_of_a_speech_encoder_lie_where_the_speech_is(folder: Path) -> None:
    found = [one for one in map(mixer(folder).clip, range(200)) if one.clips[0] in (0, 2)]
    assert len(found) > 20
    for one in found:
        values = one.speech[one.spoken, 0]
        assert len(values) and (np.diff(values) == 1).all()  # consecutive columns of one clip
        assert (values // 100 == one.clips[0]).all()
    assert not any(one.spoken.any() for one in map(mixer(folder).clip, range(200)) if one.clips[0] not in (0, 2))


def test_a_row_of_speech_has_its_answers_one_clip_after_another(folder: Path) -> None:
    made = mixer(folder, row=1.0)
    for one in map(made.clip, range(20)):
        assert set(one.clips) <= {0, 2} and one.spoken.mean() > 0.4
        values = one.speech[one.spoken, 0].astype(int)
        begins = np.flatnonzero(values % 100 == 0)
        told = [clip for clip in one.clips if made.store.speech_lengths[clip]]
        assert [values[at] // 100 for at in begins] == told[: len(begins)]
        assert all((np.diff(part) == 1).all() for part in np.split(values, begins[1:]))


def test_clips_alone_are_not_mixed(folder: Path) -> None:
    store = Store.open(folder)
    alone = Mixer(store, np.arange(CLIPS - 1), np.arange(CLIPS) > 0, seed=7, change=True, single=1.0, row=0.0)
    assert all(len(alone.clip(number).clips) == 1 for number in range(50))


@needs_weights
def test_what_is_left_out_is_not_learnt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "BATCH", 2)
    teacher = Teacher(WEIGHTS)
    train.scales(folder, mixer(folder), teacher, batches=4)
    training = train.Training(Store.open(folder), teacher, folder, without=("embedding", "map"), corpus=0.6)
    before = {name: tensor.clone() for name, tensor in training.student.state_dict().items()}
    training.advance(1.0)
    moved = {name for name, tensor in training.student.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "to_embedding.weight" not in moved and "to_map.weight" not in moved
    assert {"to_hint.weight", "network.head.1.weight"} <= moved
    assert 0 < len(training.mixer.clips) < CLIPS - 1


def test_a_group_of_one_clip_is_drawn_more_often_than_its_clip_alone_would_be(folder: Path) -> None:
    even = mixer(folder, balance=0.0)
    first = [even.clip(number).clips[0] for number in range(300)]
    assert 0.4 < first.count(0) / 300 < 0.6


@pytest.mark.parametrize("pace", [0.75, 1.0, 1.3])
def test_a_sound_that_is_played_faster_is_shorter_and_keeps_its_mean(pace: float) -> None:
    power = np.random.default_rng(0).random((200, MELS)).astype(np.float32)
    played = paced(power, pace)
    assert len(played) == int(200 / pace)
    assert played.mean() == pytest.approx(power.mean(), rel=0.01)


@pytest.mark.parametrize("bins", [-3, 0, 2])
def test_a_shift_moves_mel_bins(bins: int) -> None:
    power = np.ones((4, MELS), np.float32) * np.arange(1, MELS + 1, dtype=np.float32)
    moved = shifted(power, bins)
    inside = slice(max(0, bins), MELS + min(0, bins))
    np.testing.assert_array_equal(moved[0, inside], power[0, slice(max(0, -bins), MELS - max(0, bins))])
    assert (np.delete(moved[0], np.r_[inside]) < 1e-4).all()


@pytest.mark.parametrize("rate", RATES)
def test_a_lower_rate_leaves_the_mel_bins_that_its_recordings_fill(rate: int) -> None:
    wave = np.random.default_rng(0).standard_normal(rate).astype(np.float32)
    mel = log_mel(torch.from_numpy(soxr.resample(wave, rate, 32_000))[None], frontend_config("passt"))[0].mean(1)
    bins = bins_below(rate / 2)
    assert (mel[: bins - 3] > mel[bins + 3 :].max()).all()


def test_what_ships_scores_as_the_student_does() -> None:
    torch.manual_seed(0)
    student = Student((torch.randn(7), torch.rand(7) + 0.5))
    student(torch.randn(4, MELS, 96))  # the norms have seen a batch
    student.eval()
    mel = torch.randn(2, MELS, 160)
    with torch.no_grad():
        torch.testing.assert_close(student.shipped()(mel), student(mel).logits, atol=1e-5, rtol=1e-5)


def test_a_student_that_starts_from_what_shipped_scores_as_it_does() -> None:
    torch.manual_seed(0)
    scale = torch.randn(7), torch.rand(7) + 0.5
    student, other, mel = Student(scale), Student((scale[0] + 1, scale[1] * 2)), torch.randn(4, MELS, 160)
    student(mel)
    shipped = student.eval().shipped()
    other.start_from(shipped, mel)
    with torch.no_grad():
        expected = shipped(mel)
        torch.testing.assert_close(other.eval()(mel).logits, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(other.shipped()(mel), expected, atol=1e-4, rtol=1e-4)
        stem, plain = other.network.patch_embed, shipped.patch_embed
        torch.testing.assert_close(stem.train()(mel), plain(mel), atol=0.01, rtol=0.01)


@needs_weights
def test_layers_are_fitted_to_the_teachers_behind_shipped_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "BATCH", 4)
    teacher = Teacher(WEIGHTS)
    train.scales(folder, mixer(folder), teacher, batches=4)
    training = train.Training(Store.open(folder), teacher, folder)
    numbers = [(9, number) for number in range(8)]
    before = training.losses(training.average, training.mixer, numbers)
    training.start_from(training.student.eval().shipped())
    after = training.losses(training.average, training.mixer, numbers)
    assert after["logits"].item() == pytest.approx(before["logits"].item(), rel=0.05)
    assert all(after[name] < 0.95 * before[name] for name in ("embedding", "map", "hint", "speech"))


@needs_weights
def test_a_training_that_stopped_goes_on_to_the_same_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "BATCH", 2)
    teacher = Teacher(WEIGHTS)
    train.scales(folder, mixer(folder), teacher, batches=4)

    def begun() -> train.Training:
        return train.Training(Store.open(folder), teacher, folder)

    whole, first, second = begun(), begun(), begun()
    rows = [whole.advance(0.1) for _ in range(3)]
    assert rows[0].keys() >= {"labels", "logits", "embedding", "map", "hint"}
    first.advance(0.1)
    train.save(first, folder / "state.pt")
    second.load_state_dict(torch.load(folder / "state.pt", weights_only=True))
    second.advance(0.1)
    second.advance(0.1)
    for one, other in zip(whole.average.state_dict().values(), second.average.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [train.fallen(step, steps=1000, fall=200) for step in range(1000)]
    assert rates[0] == 1 / 200 and rates[199:801] == [1.0] * 602 and rates[-1] == pytest.approx(1 / 200)
