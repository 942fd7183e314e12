"""Study 4: how large must the adapter be?

Hidden widths from 8 to 880: 0.5% to 10% of the UNet's 14.0M parameters. Fewer this adapter cannot have here: its last
layer, as wide as what the UNet takes, is 0.47%. In Stable Diffusion XL that layer, `fc`, is 1280 x 2048 + 2048 =
2,623,488 of 2,567,463,684 parameters, 0.10%: in both the curve starts at the floor.

    python -m benchmarks.studies --study sizes --workdir runs/studies
"""

from benchmarks.studies.study import Study, Variant

PRESET = 512  # 4.7%
SHARES = {8: "0.51%", 64: "0.80%", 128: "1.2%", 256: "2.1%", PRESET: "4.7%", 880: "10%"}


def _variant(width: int, share: str) -> Variant:
    return Variant(f"{share} of the UNet, width {width}", {} if width == PRESET else {"adapter.hidden_dim": width})


STUDY = Study(
    title="How large must the adapter be?",
    variants=tuple(_variant(width, share) for width, share in SHARES.items()),
)
