"""Audio input: reads recordings as mono float32 at a given sampling rate.

    limits     what a recording may be (seconds, channels, rate, peak)
    find       the recordings below a folder
    content    file type by the first bytes, for error messages
    header     contents of a file by its headers: `chunks` (WAV and related formats), `ogg`, `mpeg`, `flac`, `boxes`
               (media)
    parts      a file that contains several recordings, each a range of its bytes
    notes      warnings about a recording that can be read
    source     output of a decoder: blocks of float32
    sndfile    libsndfile, the first decoder            hush    suppresses its messages
    media      FFmpeg (PyAV), the decoder for the rest
    recording  from a path to an open source
    resample   one streaming resampler for clips and for blocks
    clip       the public readers
    stream     live audio from a pipe
    microphone live audio from a microphone

Headers are not trusted: nothing here allocates memory from one. A file that decodes to less than its header promises is
truncated and refused. Where there is more, it is read too, or the file is refused.
"""

from ossicle.audio.clip import Clip, as_clip, measure_frames, read_blocks, read_clip
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
    "measure_frames",
    "read_blocks",
    "read_clip",
    "resample",
]
