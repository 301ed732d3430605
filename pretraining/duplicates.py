"""Near-duplicates: two clips of one recording, whatever their loudness, codec and cut.

The fingerprint of a clip is its log-mel at 32 bands and 20 frames a second, as bytes. Around every strong onset a
patch of it is compared with all patches of other clips by cosine: the onset finds the same place again in a copy that
was cut elsewhere. Where two patches agree, the clips are laid over each other there, and they are
near-duplicates when the whole of their overlap correlates, both as it is and after the mean of every band is taken
away: two steady noises have one spectrum, but not one course in time.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ossicle.frontend import frontend_config, log_mel
from ossicle.types import Float32
from pretraining.clips import gain_for

FRONTEND = frontend_config("passt")
VERSION = 2  # of the fingerprint: stored ones of another version are not compared with these
BANDS = 32
FPS = 20  # frames a second
STRIDE = FRONTEND.rate // FRONTEND.hop_samples // FPS  # frames of the front end from one frame to the next
SPAN = 2 * STRIDE  # frames of the front end in one: they overlap, for a copy may begin between two
STEPS = 10  # of a byte, in one natural log unit
FLOOR = -12.0  # natural log of the mel power that byte 0 stands for
DEPTH = 8 * STEPS  # below the loudest cell nothing is compared: what a codec or a gain changes
PATCH = 16  # frames
LEAD = 2  # frames of a patch before its onset
SIMILAR = 0.90  # cosine of two patches
CORRELATED = 0.95  # of two clips over their overlap
CHANGING = 0.85  # the same after the mean of each band is taken away
OVERLAP = 0.5  # of the shorter clip at least
AT_ONCE = 256  # patches that are compared with all others in one product
NEAREST = 16  # patches that one patch proposes at most

Print = np.ndarray  # (frame, band) bytes


def fingerprint(samples: Float32[np.ndarray, " time"]) -> Print:
    """The fingerprint of a clip at 32 kHz, at one loudness."""
    wave = torch.from_numpy(np.pad(samples * gain_for(samples), (0, max(0, FRONTEND.min_samples - len(samples)))))
    mel = log_mel(wave[None], FRONTEND) * (2 * FRONTEND.deviation) + FRONTEND.mean
    padded = torch.nn.functional.pad(mel, (0, SPAN), mode="replicate")
    pooled = torch.nn.functional.avg_pool2d(padded, (FRONTEND.mels // BANDS, SPAN), (FRONTEND.mels // BANDS, STRIDE))[0]
    return ((pooled.T - FLOOR) * STEPS).round().clamp(0, 255).to(torch.uint8).numpy()


def near_duplicates(
    prints: Sequence[Print], *, known: int = 0, checked: Sequence[bool] | None = None
) -> dict[int, int]:
    """Finds the clips that repeat an earlier one: the clip to leave out, and the one that it repeats.

    Args:
        known: the first so many are never left out themselves (what must not train)
        checked: False for a clip that is compared with the known ones only
    """
    anchors = [onsets(one) for one in prints]
    owner = np.repeat(np.arange(len(prints)), [len(found) for found in anchors])
    if len(owner) == 0:
        return {}
    at = np.concatenate(anchors)
    patches = torch.from_numpy(
        np.stack([patch(prints[clip], frame) for clip, frame in zip(owner.tolist(), at, strict=True)])
    )
    repeated: dict[int, int] = {}
    for a, b in proposals(patches, owner, at, known=known, checked=checked):
        later, earlier = owner[a], owner[b]
        if later in repeated or earlier in repeated:
            continue
        if same(prints[later], prints[earlier], int(at[b]) - int(at[a])):
            repeated[int(later)] = int(earlier)
    return repeated


def proposals(
    patches: torch.Tensor, owner: np.ndarray, at: np.ndarray, *, known: int, checked: Sequence[bool] | None
) -> Iterator[tuple[int, int]]:
    """Yields pairs of similar patches, the one of the later clip first, in the order of the later clips."""
    clip = torch.from_numpy(owner)
    begin = int(np.searchsorted(owner, known))
    first = np.searchsorted(owner, np.arange(owner[-1] + 1))  # patch of each clip: only what lies before is compared
    for start in range(begin, len(owner), AT_ONCE):
        rows = clip[start : start + AT_ONCE]
        cosine = patches[start : start + AT_ONCE] @ patches[: int(first[rows[-1]])].T
        for row, number in enumerate(rows.tolist()):
            only_known = checked is not None and not checked[number]
            cosine[row, begin if only_known else int(first[number]) :] = -1
        similar = torch.nonzero(cosine.amax(dim=1) >= SIMILAR)[:, 0] if cosine.shape[1] else torch.empty(0)
        for row in similar.tolist():
            values, columns = cosine[row].topk(min(NEAREST, cosine.shape[1]))
            yield from ((start + row, column) for column in columns[values >= SIMILAR].tolist())


def onsets(mel: Print) -> np.ndarray:
    """The frames that rise most among their neighbors of half a second; wherever a clip was cut, the same ones."""
    rise = np.maximum(np.diff(mel.astype(np.float32), axis=0, prepend=mel[:1]), 0).sum(axis=1)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(rise, FPS // 2), FPS + 1).max(axis=1)
    return np.flatnonzero((rise == around) & (rise > 0)) if rise.any() else np.zeros(1, np.int64)


def levels(mel: Print) -> Float32[np.ndarray, "frame band"]:
    """Log-mel in steps above the depth that is compared."""
    values = mel.astype(np.float32)
    return np.maximum(values - (values.max() - DEPTH), 0)


def patch(mel: Print, frame: int) -> Float32[np.ndarray, " dim"]:
    """The surroundings of an onset at half the resolution, with mean 0 and norm 1."""
    held = np.zeros((PATCH, BANDS), np.float32)
    first = max(0, frame - LEAD)
    part = mel[first : frame - LEAD + PATCH]
    held[first - (frame - LEAD) :][: len(part)] = levels(part)
    small = held.reshape(PATCH // 2, 2, BANDS // 2, 2).mean(axis=(1, 3)).ravel()
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def same(a: Print, b: Print, shift: int) -> bool:
    """Whether clips correlate where `b` is moved back by `shift` frames, or one frame more or less."""
    return any(agree(*overlap(a, b, shift + change)) for change in (0, -1, 1))


def overlap(a: Print, b: Print, shift: int) -> tuple[Print, Print]:
    first = max(0, -shift)
    last = min(len(a), len(b) - shift)
    if last - first < max(2, OVERLAP * min(len(a), len(b))):
        return a[:0], b[:0]
    return a[first:last], b[first + shift : last + shift]


def agree(a: Print, b: Print) -> bool:
    if len(a) == 0:
        return False
    x, y = levels(a), levels(b)
    return correlation(x, y) >= CORRELATED and correlation(x - x.mean(axis=0), y - y.mean(axis=0)) >= CHANGING


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / max(float(np.sqrt(np.square(x).sum() * np.square(y).sum())), 1e-6))
