"""Presets: the architectures by name.

A preset has the options of a network and its front end, without weights; `ossicle.catalog` has the weights that are
published for them. No torch here, so that names can be listed at once.

Source: Koutini et al., "Efficient Training of Audio Transformers with Patchout", Interspeech 2022 (arXiv 2110.05069);
its longer, shallower and finer variants as in the releases of github.com/kkoutini/PaSST. Zhu, "Deformable Audio
Transformer for Audio Event Detection" (arXiv 2312.16228), its sizes those of DAT (Xia et al., CVPR 2022).
Gong et al., "AST: Audio Spectrogram Transformer" (arXiv 2104.01778).
"""

from typing import Any

from ossicle.models.registry import Preset, register_network


def _passt(
    name: str,
    *,
    dim: int = 768,
    num_heads: int = 12,
    depth: int = 12,
    stride: int = 10,
    frames: int = 998,
    stem: tuple[int, ...] = (),
    **rest: Any,
) -> Preset:
    options: dict[str, Any] = {"dim": dim, "num_heads": num_heads, "depth": depth, "stride": stride, "frames": frames}
    options |= {"stem": stem} if stem else {}
    return Preset(name=name, options=options, width=str(dim), depth=str(depth), stride=str(stride), **rest)


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

PASST = (
    *(
        _passt(f"passt_{size}_s{stride}", dim=dim, num_heads=num_heads, stride=stride)
        for size, (dim, num_heads) in _WIDTHS.items()
        for stride in (10, 12, 14, 16, 20)
    ),
    _passt(
        "passt_tiny_conv",
        dim=192,
        num_heads=3,
        depth=8,
        stride=16,
        stem=(32, 48, 96),
        note="convolutions ahead of the patches: learns from less",
    ),
    _passt("passt_base_s10_d7", depth=7, note="7 of 12 blocks: PaSST-L"),
    _passt("passt_base_s10_20s", frames=2000, note="20 s in one pass"),
    _passt("passt_base_s10_30s", frames=3000, note="30 s in one pass"),
    _passt("passt_base_s10_hop100", frames=3200, frontend="passt_hop100", frame_seconds=0.003125, counted_frames=3200),
    _passt("passt_base_s10_hop160", frames=2000, frontend="passt_hop160", frame_seconds=0.005, counted_frames=2000),
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
