"""WAV and related formats, AU and SPHERE: position of the samples by the header, and what follows them.

The samples are followed by further chunks, tags or zeros; by another recording, where files were concatenated; or by
samples that the header does not count, since a length of 32 bits has wrapped at 4 GiB or was never updated. A length
that can be determined is corrected. Other data that might be audio are refused, to lose no part of a recording.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

from ossicle.audio.parts import MOST_PARTS, Contents, Part, skip_tags, skip_zeros

# Placeholders of programs that write to a pipe for an unknown length of 32 bits, besides 0: about the largest number,
# signed or unsigned. A length of 64 bits from LONGEST_64 on is unknown.
UNKNOWN = (range(0x7F00_0000, 0x8000_0200), range(0xFFFF_FF00, 1 << 32))
LONGEST_64 = 1 << 62
MAX_CHUNKS = 1_000
WRAP = 1 << 32
LEFT = 1_024  # bytes after the samples that are ignored: a hundredth of a second of typical audio

# Names of chunks that are known to follow samples: of these the last may be cut.
_NAMES = (
    b"LISTlistINFOFACTfactPEAKpeakcue plstlablnoteltxtsmplinstbextiXMLaxmlchna_PMXXMP aXMLumidID3 id3 ID32JUNKjunkPAD "
    b"pad FLLRFakefreelevlqltymextlinkcartacidstrcCr8rDISPafspminfelm1regnDGDASNDMwamdguanGUANTLSTResULGWVdbmdMARKINST"
    b"COMTAPPLANNONAMEAUTH(c) MIDISAXLFVERCHANbasctrnscateinfochanmarkmidistrgedctuuiddescpaktkukifmt COMM"
)
KNOWN = frozenset(_NAMES[at : at + 4] for at in range(0, len(_NAMES), 4))


@dataclass(frozen=True, kw_only=True)
class Form:
    """Byte layout of a container: start of the chunks, format of a chunk's header, name of the chunk of samples,
    alignment of chunks, and whether lengths have 64 bits."""

    name: str
    begin: int
    head: str  # empty where there are no chunks
    sound: bytes
    step: int
    wide: bool = False


FORMS = {
    b"RIFF": Form(name="WAV", begin=12, head="<4sI", sound=b"data", step=2),
    b"RIFX": Form(name="WAV", begin=12, head=">4sI", sound=b"data", step=2),
    b"RF64": Form(name="RF64", begin=12, head="<4sI", sound=b"data", step=2, wide=True),
    b"FORM": Form(name="AIFF", begin=12, head=">4sI", sound=b"SSND", step=2),
    b"caff": Form(name="CAF", begin=8, head=">4sq", sound=b"data", step=1, wide=True),
    b"riff": Form(name="W64", begin=40, head="<16sQ", sound=b"data", step=8, wide=True),
}
AU = Form(name="AU", begin=24, head="", sound=b"", step=1)
SPHERE = Form(name="SPHERE", begin=1_024, head="", sound=b"", step=1, wide=True)


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Position of a recording's samples according to its header.

    `outer` is the end of the container according to its header, or 0.
    """

    form: Form
    mark: bytes
    start: int  # of the header
    begin: int  # of the samples
    length: int
    outer: int = 0

    @property
    def known(self) -> bool:
        return known(self.length, wide=self.form.wide)

    @property
    def end(self) -> int:
        return self.begin + self.length


def known(length: int, *, wide: bool) -> bool:
    """Whether a length is not a placeholder for an unknown one; 0 may be either."""
    return 0 <= length < LONGEST_64 if wide else not any(length in values for values in UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Actual number of bytes of samples, start of the next recording, and a warning or an error.

    A length that reaches beyond the file is the header's.
    """

    length: int
    following: int | None = None
    remark: str = ""
    refusal: str = ""


def chunk_contents(data: BinaryIO, begin: int, *, size: int) -> Contents:
    """Contents of a WAV, RF64, W64, AIFF, CAF, AU or SPHERE file; empty for any other file."""
    parts: list[Part] = []
    remarks: list[str] = []
    at: int | None = begin
    last = None
    while at is not None and (sound := find_sound(data, at, size=size)) is not None and sound.begin < size:
        last, found = sound, whole_sound(data, sound, size=size)
        if found.refusal or len(parts) == MOST_PARTS:
            return Contents(refusal=found.refusal or f"the file contains more than {MOST_PARTS} consecutive recordings")
        remarks += [found.remark] if found.remark else []
        parts.append(part_of(data, sound, found.length, size=size))
        at = found.following
    if last is None:
        return Contents()
    if len(parts) > 1:
        remarks.append(f"the file contains {len(parts)} consecutive recordings; they are read as one")
    there = size - last.begin
    length = max(last.length, found.length) if last.known else 1
    return Contents(
        parts=tuple(parts) if len(parts) > 1 or needed(parts[0], last, size=size) else (),
        binding=len(parts) > 1 or bool(parts[0].head or parts[0].patches),
        promised=length,
        there=min(length, there) or there if last.known else 1,
        missing=length - there if len(parts) > 1 and last.known and length - there > length // 100 else 0,
        remarks=tuple(remarks),
    )


def needed(part: Part, sound: Sound, *, size: int) -> bool:
    """Whether libsndfile would decode the whole file differently from the part.

    It reads everything after the header of a W64 or SPHERE file as samples.
    """
    return bool(part.head or part.patches) or (sound.form.name in ("W64", "SPHERE") and part.end < size)


def whole_sound(data: BinaryIO, sound: Sound, *, size: int) -> Finding:
    """Determines the actual length of a recording's samples from the data after their end according to the header."""
    rest, form, wide = size - sound.end, sound.form, sound.form.wide
    if not sound.known:
        # A placeholder may still be the actual length, and libsndfile uses it as one.
        beyond = not wide and rest > 0 and behind(data, sound.end, form, size=size)[0] == "more"
        return Finding(length=size - sound.begin if beyond else sound.length)
    if rest <= 0:
        return Finding(length=sound.length)
    if not wide and rest >= WRAP:
        end = sound.end + rest // WRAP * WRAP
        after, following = behind(data, end, form, size=size)
        if after != "more" and correctable(data, sound):
            length = end - sound.begin
            remark = f"the length in its header has wrapped at 4 GiB; all {length} bytes of samples are read"
            return Finding(length=length, following=following, remark=remark)
    after, following = behind(data, sound.end, form, size=size)
    if after in ("end", "next") or (after == "more" and sound.length == 0):
        return Finding(length=sound.length, following=following)
    promise = f"its header promises {sound.length} bytes of sound, and"
    if after == "second":
        return Finding(length=0, refusal=f"{promise} more sound follows in a second chunk; save it as one")
    there = size - sound.begin
    covered = known(sound.outer, wide=wide) and sound.outer >= size - LEFT  # according to the container
    if (covered and correctable(data, sound)) or form is SPHERE:
        return Finding(length=there, remark=f"{promise} {there} follow; it is read to its end")
    remedy = "send it to standard input, which is read to its end, or " if sound.mark == b"RIFF" else ""
    refusal = (
        f"{promise} {rest} more bytes follow that are not part of {form.name}, as after a power failure; "
        f"{remedy}repair the header (sox --ignore-length does)"
    )
    return Finding(length=0, refusal=refusal)


def correctable(data: BinaryIO, sound: Sound) -> bool:
    """Whether `part_of` can give the recording another length."""
    data.seek(sound.start + 12)
    return sound.mark != b"RIFX" and (sound.mark != b"RF64" or data.read(4) == b"ds64")


def behind(data: BinaryIO, at: int, form: Form, *, size: int) -> tuple[str, int | None]:
    """Kind of the data after the samples: "end" for chunks, tags and zeros up to the end of the file, "next" with the
    start of another recording, "second" for another chunk of samples, "more" for anything else."""
    trusted = False
    for _ in range(MAX_CHUNKS):
        at = skip_zeros(data, at, size=size)  # also what fills up a chunk
        data.seek(at)
        head = data.read(40)
        if is_recording(head):
            return "next", at
        if (tagged := skip_tags(data, at, size=size)) > at:
            at = tagged
            continue
        name, length = b"", -1
        if form.head and len(head) >= struct.calcsize(form.head):
            name, length = struct.unpack(form.head, head[: struct.calcsize(form.head)])
            at += struct.calcsize(form.head)
            length -= len(name) + 8 if len(name) == 16 else 0  # W64 counts the chunk's own head
        known_name, name = name[:4] in KNOWN, name[:4]
        if name == form.sound and name and length > 0:
            return "second", None
        fits = 0 <= length <= size - at
        if not fits or not (known_name or all(0x20 <= letter < 0x7F for letter in name)):
            return "end" if trusted or known_name or size - at <= LEFT else "more", None
        trusted = trusted or known_name
        at += length
    return "end", None


def is_recording(head: bytes) -> bool:
    """Whether the header of a recording begins here."""
    kind = head[8:12]
    return (
        (head[:4] in (b"RIFF", b"RIFX", b"RF64") and kind == b"WAVE")
        or (head[:4] == b"FORM" and kind in (b"AIFF", b"AIFC"))
        or head.startswith((b"caff\0\1\0\0", b"riff\x2e\x91\xcf\x11", b"NIST_1A\n"))
        or (head[:4] == b".snd" and 24 <= int.from_bytes(head[4:8]) <= 1 << 20)
    )


def find_sound(data: BinaryIO, start: int, *, size: int) -> Sound | None:
    """Position of the samples of the recording at `start` by its header; None without a header or samples."""
    data.seek(start)
    head = data.read(1_024)
    mark = head[:4]
    if mark == b".snd" and len(head) >= 12:
        begin, length = struct.unpack(">II", head[4:12])
        return Sound(form=AU, mark=mark, start=start, begin=start + begin, length=length)
    if head.startswith(b"NIST_1A\n"):
        return find_sphere(head, start)
    form = FORMS.get(mark)
    if form is None:
        return None
    at = start + form.begin
    for _ in range(MAX_CHUNKS):
        data.seek(min(at, size))
        chunk = data.read(struct.calcsize(form.head))
        if len(chunk) < struct.calcsize(form.head):
            return None
        name, length = struct.unpack(form.head, chunk)
        if len(name) == 16:
            length -= len(chunk)
        if name[:4] == form.sound:
            if mark == b"RF64" and length == 0xFFFF_FFFF:
                (length,) = struct.unpack("<Q", head[28:36].ljust(8, b"\0"))
            outer = outer_end(head, mark, start)
            return Sound(form=form, mark=mark, start=start, begin=at + len(chunk), length=length, outer=outer)
        at += len(chunk) + max(0, length) + -length % form.step
    return None


def find_sphere(head: bytes, start: int) -> Sound:
    """As `find_sound`, for a SPHERE file, whose header is text: `name -i number` in each line."""
    values = dict(line.split(b" -i ", 1) for line in head.split(b"\n") if b" -i " in line)
    try:
        begin = int(head[8:16])
        length = int(values[b"sample_count"]) * int(values[b"channel_count"]) * int(values[b"sample_n_bytes"])
    except (KeyError, ValueError):
        begin, length = 1_024, -1
    return Sound(form=SPHERE, mark=head[:4], start=start, begin=start + max(0, begin), length=length)


def outer_end(head: bytes, mark: bytes, start: int) -> int:
    """End of the container according to its header; 0 if unknown."""
    if mark == b"caff" or len(head) < 28:
        return 0
    if mark == b"riff":
        return start + int.from_bytes(head[16:24], "little")
    if mark == b"RF64":
        return start + 8 + int.from_bytes(head[20:28], "little")
    length = int.from_bytes(head[4:8], "little" if mark == b"RIFF" else "big")
    return start + 8 + length if known(length, wide=False) else 0


# --- recordings with the right length ---------------------------------------------------------------------------------


def part_of(data: BinaryIO, sound: Sound, length: int, *, size: int) -> Part:
    """The recording with `length` bytes of samples, whatever its header says."""
    begin, at = sound.start, sound.begin - sound.start
    end = min(sound.begin + length, size) if sound.known or length != sound.length else size
    if length == sound.length or sound.form is SPHERE:
        return Part(begin=begin, end=end)
    if length >= WRAP and sound.mark == b"RIFF":
        return Part(begin=sound.begin, end=end, head=rf64_head(data, sound, length))
    if length >= WRAP and sound.mark == b"FORM":
        skipped = 8  # offset and block size, ahead of an AIFF's samples
        return Part(begin=sound.begin + skipped, end=end, head=caf_head(data, sound, length))
    patches: dict[bytes, tuple[tuple[int, bytes], ...]] = {
        b".snd": ((8, b"\xff\xff\xff\xff"),),  # to the end
        b"caff": ((at - 8, struct.pack(">q", length)),),
        b"riff": ((at - 8, struct.pack("<Q", length + 24)),),
        b"RF64": ((28, struct.pack("<Q", length)), (at - 4, b"\xff\xff\xff\xff")),
        b"RIFF": ((at - 4, struct.pack("<Q", length)[:4]),),
        b"FORM": ((at - 4, struct.pack(">Q", length)[4:]),),
    }
    return Part(begin=begin, end=end, patches=patches[sound.mark])


def chunk_of(data: BinaryIO, sound: Sound, wanted: bytes) -> bytes:
    """The content of a chunk ahead of the samples, or nothing."""
    at = sound.start + sound.form.begin
    for _ in range(MAX_CHUNKS):
        data.seek(at)
        head = data.read(8)
        if at >= sound.begin or len(head) < 8:
            break
        name, length = struct.unpack(sound.form.head, head)
        if name == wanted:
            return data.read(min(length, 1 << 16))
        at += 8 + length + length % 2
    return b""


def rf64_head(data: BinaryIO, sound: Sound, length: int) -> bytes:
    """The header of an RF64 file, whose lengths have 64 bits, in the place of a WAV's."""
    form = chunk_of(data, sound, b"fmt ")
    form = b"fmt " + struct.pack("<I", len(form)) + form + b"\0" * (len(form) % 2)
    sizes = struct.pack("<IQQQI", 28, 48 + len(form) + 8 + length - 8, length, 0, 0)
    return b"RF64\xff\xff\xff\xffWAVEds64" + sizes + form + b"data\xff\xff\xff\xff"


def caf_head(data: BinaryIO, sound: Sound, length: int) -> bytes:
    """The header of a CAF file, whose lengths have 64 bits, in the place of an AIFF's; no bytes for a rare coding."""
    common = chunk_of(data, sound, b"COMM")
    if len(common) < 18:
        return b""
    channels, _, bits, exponent, mantissa = struct.unpack(">hIhHQ", common[:18])
    rate = float(mantissa) * 2.0 ** (min(max((exponent & 0x7FFF) - 16_383 - 63, -1_000), 900))
    codings = {b"": (0, bits), b"NONE": (0, bits), b"twos": (0, bits), b"sowt": (2, bits)}
    codings |= {b"fl32": (1, 32), b"FL32": (1, 32), b"fl64": (1, 64), b"FL64": (1, 64)}
    if common[18:22] not in codings or channels < 1:
        return b""
    flags, bits = codings[common[18:22]]
    frame = channels * (-(-bits // 8))
    desc = struct.pack(">d4sIIIII", rate, b"lpcm", flags, frame, 1, channels, bits)
    return b"caff\0\1\0\0desc" + struct.pack(">q", len(desc)) + desc + b"data" + struct.pack(">qI", length - 4, 0)
