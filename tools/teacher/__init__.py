"""Trains the small English text-to-image model under `assets/teacher`, in PyTorch with `diffusers`.

Four stages, each a command, resumable and run in this order:

    python -m tools.teacher.vae      --workdir DIR     # pictures      -> AutoencoderKL
    python -m tools.teacher.text     --workdir DIR     # English words -> tokenizer and two CLIP text encoders
    python -m tools.teacher.unet     --workdir DIR     # both          -> UNet2DConditionModel
    python -m tools.teacher.assemble --workdir DIR --out assets/teacher
"""
