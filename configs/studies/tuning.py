"""Study 2: a frozen adapter, or fine-tuning?

Fine-tuning needs something that makes the text encoder's width the UNet's: a join of one layer, trained beside the
UNet's part, and once alone. Losses, data and schedule are the adapter's. The parts, and their learning rates, are in
`benchmarks/studies/parts.py`; nothing of them was tuned. Each system is also asked in English, with the part that it
trained; and with a LoRA that was trained before, on the English model, and gives all pictures other colours.

    python -m benchmarks.studies --study tuning --workdir runs/studies
"""

from benchmarks.studies.study import Study, Variant

JOIN = {"adapter.num_layers": 1}

STUDY = Study(
    title="A frozen adapter, or fine-tuning?",
    variants=(
        Variant("adapter"),
        Variant("join alone", JOIN),
        Variant("join, LoRA of rank 8 on the cross-attention", JOIN, trains="lora"),
        Variant("join, keys and values of the cross-attention", JOIN, trains="key_value"),
        Variant("join, whole UNet", JOIN, trains="unet"),
    ),
    effects=True,
)
