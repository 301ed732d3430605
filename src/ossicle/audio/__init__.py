"""Bytes to samples: any recording becomes mono float32 at the rate a model wants, or one clear error.

    limits     what a recording may be (seconds, channels, rate, peak)
    find       the recordings below a folder
    content    what a file's first bytes say it is, for error messages
    header     what a file holds by its headers: `chunks` (WAV and its kin), `ogg`, `mpeg`, `flac`, `boxes`
               (media)
    parts      a file as several recordings, each in a stretch of its bytes
    notes      what is said of a recording that is read all the same
    source     what a decoder hands over: blocks of float32
    sndfile    libsndfile, the first decoder            hush    its quiet
    media      FFmpeg (PyAV), the decoder for the rest
    recording  from a path to an open source
    resample   one streaming resampler for clips and for blocks
    clip       the public readers
    stream     sound from a pipe, while it arrives
    microphone sound from the air

A header is a claim by a stranger: nothing here allocates from one, and only what decodes counts; where that is less
than was claimed, the file was cut, and is refused. Where there is more, it is read too, or the file is refused.
"""

from ossicle.audio.clip import Clip, as_clip, read_blocks, read_clip
from ossicle.audio.find import AUDIO_SUFFIXES, find_audio
from ossicle.audio.limits import AudioLimits
from ossicle.audio.resample import resample
from ossicle.audio.source import DECODER, AudioInfo

__all__ = [
    "AUDIO_SUFFIXES",
    "DECODER",
    "AudioInfo",
    "AudioLimits",
    "Clip",
    "as_clip",
    "find_audio",
    "read_blocks",
    "read_clip",
    "resample",
]
