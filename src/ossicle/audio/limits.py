"""Limits of the recordings that are read."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AudioLimits:
    """Limits of a recording; outside them it is refused with `AudioRefused`.

    A clip is kept in memory as a whole, so `seconds` limits it; `read_blocks` keeps one block and ignores `seconds`.

    >>> AudioLimits(seconds=30.0).channels
    64
    """

    seconds: float = 3600.0  # of one clip, or of the segment that is read
    channels: int = 64
    min_rate: int = 1_000  # hertz
    max_rate: int = 768_000  # hertz
    peak: float = 1e10  # largest magnitude of a sample: its squares, summed in a spectrogram, must fit float32

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"seconds must be positive, not {self.seconds}")
        if self.channels < 1:
            raise ValueError(f"channels must be at least 1, not {self.channels}")
        if not 1 <= self.min_rate <= self.max_rate:
            raise ValueError(f"rates must satisfy 1 <= min_rate <= max_rate, not {self.min_rate} and {self.max_rate}")
        if not 0 < self.peak <= 1e10:
            raise ValueError(f"peak must lie in (0, 1e10], not {self.peak}")


DEFAULT_LIMITS = AudioLimits()
