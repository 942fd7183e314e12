"""Trains the small English text-to-image model under `assets/teacher`, in PyTorch with `diffusers`.

Five stages, each a command, run in this order; the trainings are resumable:

    python -m tools.teacher.vae      --workdir DIR     # pictures      -> AutoencoderKL
    python -m tools.teacher.text     --workdir DIR     # English words -> tokenizer and two CLIP text encoders
    python -m tools.teacher.unet     --workdir DIR     # both          -> UNet2DConditionModel
    python -m tools.teacher.assemble --workdir DIR --out assets/teacher
    python -m tools.teacher.judge    --out assets/teacher/training/judgement.json
"""
