"""What a recording may be."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AudioLimits:
    """Bounds that a recording must lie in; outside them it is refused with `AudioRefused`.

    A clip is held in memory whole, so `seconds` bounds it; `read_blocks` holds one block and ignores `seconds`.

    >>> AudioLimits(seconds=30.0).channels
    64
    """

    seconds: float = 3600.0  # of one clip, after cutting out the segment asked for
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
