"""The models by name, as data: our architectures and every published PaSST checkpoint.

A preset says how to build a network and which front end feeds it; it holds no weights. Published names are those of the
reference packages; `url` is where their weights lie. No torch here, so that names can be listed at once.

Source: Koutini et al., "Efficient Training of Audio Transformers with Patchout", Interspeech 2022 (arXiv 2110.05069);
releases of github.com/kkoutini/PaSST.
"""

from dataclasses import dataclass

RELEASES = "https://github.com/kkoutini/PaSST/releases/download/"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One name in the registry: an architecture, its front end and, where published, its weights."""

    name: str
    dim: int = 768
    num_heads: int = 12
    depth: int = 12
    stride: int = 10  # frames and mel bins between patches
    frames: int = 998  # input length the time positions are made for
    num_classes: int = 527
    frontend: str = "passt"  # recipe by name
    frame_seconds: float = 0.01  # hop of that recipe
    url: str | None = None
    map: float | None = None  # mean average precision that its authors report
    data: str = ""  # where, if not on AudioSet
    licence: str | None = None  # of the weights
    note: str = ""


def _published(name: str, file: str, map: float, **changes) -> Preset:
    return Preset(name=name, url=RELEASES + file, map=map, licence="Apache-2.0", **changes)


_WIDTHS = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}

ARCHITECTURES = tuple(
    Preset(name=f"passt_{size}_s{stride}", dim=dim, num_heads=num_heads, stride=stride)
    for size, (dim, num_heads) in _WIDTHS.items()
    for stride in (10, 12, 14, 16, 20)
)

_UNSURE = "name says stride 16; trust the shapes in the file"

PUBLISHED = (
    _published("passt_s_swa_p16_128_ap476", "v0.0.1-audioset/passt-s-f128-p16-s10-ap.476-swa.pt", 0.476),
    _published("passt_s_swa_p16_128_ap4761", "v0.0.2-audioset/passt-s-f128-p16-s10-ap.4761-swa.pt", 0.4761),
    _published("passt_s_p16_128_ap472", "v0.0.2-audioset/passt-s-f128-p16-s10-ap.472.pt", 0.472),
    _published("passt_s_swa_p16_s12_128_ap473", "v0.0.2-audioset/passt-s-f128-p16-s12-ap.473-swa.pt", 0.473, stride=12),
    _published("passt_s_p16_s12_128_ap470", "v0.0.2-audioset/passt-s-f128-p16-s12-ap.470.pt", 0.470, stride=12),
    _published("passt_s_swa_p16_s14_128_ap471", "v0.0.2-audioset/passt-s-f128-p16-s14-ap.471-swa.pt", 0.471, stride=14),
    _published("passt_s_p16_s14_128_ap469", "v0.0.2-audioset/passt-s-f128-p16-s14-ap.469.pt", 0.469, stride=14),
    _published("passt_s_swa_p16_s16_128_ap473", "v0.0.2-audioset/passt-s-f128-p16-s16-ap.473-swa.pt", 0.473, stride=16),
    _published("passt_s_p16_s16_128_ap468", "v0.0.2-audioset/passt-s-f128-p16-s16-ap.468.pt", 0.468, stride=16),
    _published(
        "stfthop100",
        "v0.0.3-audioset/passt-s-f128-stfthop100-p16-s10-ap.473-swa.pt",
        0.473,
        frames=3200,
        frontend="passt_hop100",
        frame_seconds=0.003125,
    ),
    _published(
        "stfthop160",
        "v0.0.3-audioset/passt-s-f128-stfthop160-p16-s10-ap.473-swa.pt",
        0.473,
        frames=2000,
        frontend="passt_hop160",
        frame_seconds=0.005,
    ),
    _published(
        "passt_s_f128_20sec_p16_s10_ap474", "v0.0.5/passt-s-f128-20sec-p16-s10-ap.474-swa.pt", 0.474, frames=2000
    ),
    _published("passt_20sec", "v0.0.5/passt-s-f128-20sec-p16-s10-ap.474-swa.pt", 0.474, frames=2000),
    _published(
        "passt_s_f128_30sec_p16_s10_ap473", "v0.0.5/passt-s-f128-30sec-p16-s10-ap.473-swa.pt", 0.473, frames=3000
    ),
    _published("passt_30sec", "v0.0.5/passt-s-f128-30sec-p16-s10-ap.473-swa.pt", 0.473, frames=3000),
    _published(
        "openmic", "v0.0.5/openmic-passt-s-f128-10sec-p16-s10-ap.85.pt", 0.85, num_classes=20, data="OpenMIC-2018"
    ),
    _published("fsd50k", "v0.0.5/fsd50k-passt-s-f128-p16-s10-ap.655.pt", 0.655, num_classes=200, data="FSD50K"),
    _published(
        "fsd50k-n",
        "v0.0.5/fsd50k-passt-s-n-f128-p16-s16-ap.642.pt",
        0.642,
        stride=16,
        num_classes=200,
        data="FSD50K",
    ),
    _published(
        "passt_b_f128_p16_s16_ap_459", "v.0.0.7-audioset/passt-b-f128-p16-s16-ap.459.pt", 0.459, stride=16, note=_UNSURE
    ),
    _published(
        "passt_u600_f128_p16_s16_ap_460",
        "v.0.0.7-audioset/passt-u600-f128-p16-s16-ap.460.pt",
        0.460,
        stride=16,
        note=_UNSURE,
    ),
    _published("passt_s_kd_p16_128_ap486", "v.0.0.9/passt-s-kd-ap.486.pt", 0.486),
    _published("passt_l_kd_p16_128_ap47", "v.0.0.10/passt-l-kd-ap.47.pt", 0.4708, depth=7),
)

PRESETS = {preset.name: preset for preset in ARCHITECTURES + PUBLISHED}
