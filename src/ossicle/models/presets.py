"""Presets: our architectures, and the published PaSST checkpoints.

A preset has the options of a network and its front end, without weights. Published names are those of the
reference packages; `url` is where their weights are. Five published files have no name there and none here: the folds
of ESC-50 in release v.0.0.6, which `passt_base_s10` with 50 labels takes. No torch here, so that names can be listed at
once.

Source: Koutini et al., "Efficient Training of Audio Transformers with Patchout", Interspeech 2022 (arXiv 2110.05069);
releases of github.com/kkoutini/PaSST. Zhu, "Deformable Audio Transformer for Audio Event Detection" (arXiv 2312.16228),
its sizes those of DAT (Xia et al., CVPR 2022). Gong et al., "AST: Audio Spectrogram Transformer" (arXiv 2104.01778).
"""

from typing import Any

from ossicle.models.registry import Preset, register_network

RELEASES = "https://github.com/kkoutini/PaSST/releases/download/"


def _passt(
    name: str, *, dim: int = 768, num_heads: int = 12, depth: int = 12, stride: int = 10, frames: int = 998, **rest: Any
) -> Preset:
    options = {"dim": dim, "num_heads": num_heads, "depth": depth, "stride": stride, "frames": frames}
    return Preset(name=name, options=options, width=str(dim), depth=str(depth), stride=str(stride), **rest)


def _published(name: str, file: str, map: float, **changes: Any) -> Preset:
    return _passt(name, url=RELEASES + file, map=map, license="Apache-2.0", **changes)


def _datar(name: str, *, note: str = "", **changes: Any) -> Preset:
    options = {"dims": (96, 192, 384, 768), "depths": (2, 2, 6, 2)} | changes
    width, depth = ("-".join(map(str, options[field])) for field in ("dims", "depths"))
    return Preset(
        name=name,
        options=options,
        frontend="kaldi_fbank",
        counted_frames=1024,
        width=width,
        depth=depth,
        stride="4-8-16-32",
        note=note,
    )


_WIDTHS = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}

_SEGMENTED: dict[str, Any] = {"deform": (True, True, True, True), "key_strides": (8, 4, 2, 1), "segment": 1024}
_NANO: dict[str, Any] = {
    "dims": (16, 48, 96, 192),
    "depths": (1, 1, 4, 2),
    "num_heads": (1, 2, 4, 8),
    "num_groups": (1, 1, 2, 4),
}
_SMALL: dict[str, Any] = {"depths": (2, 2, 18, 2)}
_BASE: dict[str, Any] = _SMALL | {
    "dims": (128, 256, 512, 1024),
    "num_heads": (4, 8, 16, 32),
    "num_groups": (1, 2, 4, 8),
}

DATAR = (
    _datar("datar_nano", **_NANO),
    _datar("datar_tiny"),
    _datar("datar_small", **_SMALL),
    _datar("datar_base", **_BASE),
    _datar(
        "datar_tiny_segmented",
        note="deforms in every stage, inside segments of 10.24 s: the cost grows with the length and no faster",
        **_SEGMENTED,
    ),
    _datar("datar_tiny_hop", note="scores every 160 ms", hop_features=True),
    _datar("datar_nano_hop", note="scores every 160 ms", hop_features=True, **_NANO),
)

_UNSURE = "name says stride 16; trust the shapes in the file"

PASST = (
    *(
        _passt(f"passt_{size}_s{stride}", dim=dim, num_heads=num_heads, stride=stride)
        for size, (dim, num_heads) in _WIDTHS.items()
        for stride in (10, 12, 14, 16, 20)
    ),
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
        counted_frames=3200,
    ),
    _published(
        "stfthop160",
        "v0.0.3-audioset/passt-s-f128-stfthop160-p16-s10-ap.473-swa.pt",
        0.473,
        frames=2000,
        frontend="passt_hop160",
        frame_seconds=0.005,
        counted_frames=2000,
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

AST = tuple(
    Preset(
        name=f"ast_base_s{stride}",
        options={"stride": stride, "frames": 1024},
        frontend="ast",
        counted_frames=1024,
        width="768",
        depth="12",
        stride=str(stride),
    )
    for stride in (10, 12, 14, 16)
)

register_network("ossicle.models.passt:Passt", presets=PASST)
register_network("ossicle.models.ast:Ast", presets=AST)
register_network("ossicle.models.datar:Datar", presets=DATAR)
