"""Sounds and files for the tests of ossicle.audio; `tests/hostile/audio` uses them too."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

# name -> (libsndfile format, subtype, channels, largest difference after a round trip or None for lossy)
SNDFILE_ZOO = {
    "pcm8.wav": ("WAV", "PCM_U8", 1, 2**-6),
    "pcm16.wav": ("WAV", "PCM_16", 2, 2**-14),
    "pcm24.wav": ("WAV", "PCM_24", 1, 2**-22),
    "float.wav": ("WAV", "FLOAT", 2, 0.0),
    "double.wav": ("WAV", "DOUBLE", 1, 0.0),
    "extensible.wav": ("WAVEX", "PCM_16", 2, 2**-14),
    "alaw.wav": ("WAV", "ALAW", 1, 0.05),
    "ima.wav": ("WAV", "IMA_ADPCM", 2, None),
    "ms.wav": ("WAV", "MS_ADPCM", 1, None),
    "gsm.wav": ("WAV", "GSM610", 1, None),
    "big.rf64": ("RF64", "PCM_16", 1, 2**-14),
    "sony.w64": ("W64", "PCM_24", 2, 2**-22),
    "lossless16.flac": ("FLAC", "PCM_16", 2, 2**-14),
    "lossless24.flac": ("FLAC", "PCM_24", 1, 2**-22),
    "vorbis.ogg": ("OGG", "VORBIS", 2, None),
    "voice.opus": ("OGG", "OPUS", 1, None),
    "layer3.mp3": ("MP3", "MPEG_LAYER_III", 2, None),
    "apple.aiff": ("AIFF", "PCM_16", 2, 2**-14),
    "float.aifc": ("AIFF", "FLOAT", 1, 0.0),
    "core.caf": ("CAF", "ALAC_16", 2, 2**-14),
    "sun.au": ("AU", "PCM_16", 1, 2**-14),
    "sphere.sph": ("NIST", "PCM_16", 1, 2**-14),
    "creative.voc": ("VOC", "PCM_16", 1, 2**-14),
}
# name -> (FFmpeg codec, channels)
MEDIA_ZOO = {
    "phone.m4a": ("aac", 1),
    "apple.m4a": ("alac", 2),
    "browser.webm": ("libopus", 1),
    "film.mp4": ("aac", 2),
    "archive.mka": ("flac", 2),
    "radio.aac": ("aac", 1),
    "disc.ac3": ("ac3", 2),
}


def tone(frequency: float, rate: int, seconds: float, amplitude: float = 0.5) -> np.ndarray:
    """A sine, float32 (time,)."""
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def chirp(rate: int, seconds: float, channels: int = 1) -> np.ndarray:
    """A sweep with noise, different in every channel, float32 (time, channel): no two stretches of it are alike."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal((len(time), channels))
    sweeps = [0.4 * np.sin(2 * np.pi * (300 + 100 * n + 900 * time / seconds) * time) for n in range(channels)]
    return (np.stack(sweeps, axis=1) + 0.05 * noise).astype(np.float32)


def write_media(path: Path, codec: str, samples: np.ndarray, rate: int, *, picture: bool = False) -> Path:
    """Encodes (time, channel) with FFmpeg, beside a moving picture if asked for."""
    layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if picture:
            video = container.add_stream("mpeg4", rate=10)
            video.width = video.height = 32
        container.start_encoding()
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        frame.sample_rate = rate
        converter = av.AudioResampler(format=stream.format, layout=layout, rate=rate)
        queue = av.AudioFifo()
        for piece in converter.resample(frame) + converter.resample(None):
            queue.write(piece)
        while queue.samples:
            container.mux(stream.encode(queue.read(stream.codec_context.frame_size or 1024, partial=True)))
        container.mux(stream.encode(None))
        if picture:
            container.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
            container.mux(video.encode(None))
    return path


def write_timed(
    path: Path,
    tracks: Sequence[Sequence[tuple[float, np.ndarray]]],
    rate: int = 48_000,
    *,
    codec: str = "aac",
    picture: float = 0.0,
    marked: int | None = None,
) -> Path:
    """Encodes audio tracks whose pieces, mono, begin at their time stamps, beside so many seconds of a picture.

    Args:
        marked: the number of the track that is the default, from 0
    """
    with av.open(str(path), "w") as container:
        if picture:
            video = container.add_stream("mpeg4", rate=10)
            video.width = video.height = 32
        streams = [container.add_stream(codec, rate=rate, layout="mono") for _ in tracks]
        for number, stream in enumerate(streams):
            if marked is not None:
                stream.disposition = av.stream.Disposition(int(number == marked))
        for number in range(round(10 * picture)):
            frame = av.VideoFrame(32, 32, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(video.encode(frame))
        for stream, pieces in zip(streams, tracks, strict=True):
            for begins, samples in pieces:
                size = stream.codec_context.frame_size or 1024
                for at in range(0, len(samples), size):
                    frame = av.AudioFrame.from_ndarray(samples[None, at : at + size], format="fltp", layout="mono")
                    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                    frame.pts = round(begins * rate) + at
                    container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if picture:
            container.mux(video.encode(None))
    return path


def write_zoo(folder: Path, seconds: float, rate: int = 48_000) -> dict[str, Path]:
    """Writes the same sweep in every format; name -> path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (form, subtype, channels, _) in SNDFILE_ZOO.items():
        soundfile.write(folder / name, chirp(rate, seconds, channels), rate, format=form, subtype=subtype)
    for name, (codec, channels) in MEDIA_ZOO.items():
        write_media(folder / name, codec, chirp(rate, seconds, channels), rate, picture=name == "film.mp4")
    return {name: folder / name for name in (*SNDFILE_ZOO, *MEDIA_ZOO)}
