"""Two nodes for ComfyUI: load an adapter, and encode text of its language in place of "CLIP Text Encode".

Copy this file to ComfyUI/custom_nodes/, and run `pip install -e '.[torch,transformers]'` in a clone of pea_jax with
ComfyUI's Python. The conditioning goes where CLIP's goes: into KSampler, ControlNet, inpainting; LoRAs are loaded on
the model as ever.
"""

from typing import Any

import torch

from pea_jax.pytorch import PEAdapter

CATEGORY = "conditioning/pea"
LARGEST = 16384
Conditioning = list[list[Any]]  # ComfyUI's: pairs of tokens `[1, L, E]` and a dict of what goes with them


class PEALoadAdapter:
    """The adapter of a folder, or of OWNER/NAME on the Hugging Face Hub, with its text encoder."""

    RETURN_TYPES = ("PEA_ADAPTER",)
    FUNCTION = "load"
    CATEGORY = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"adapter": ("STRING", {"default": "runs/ru/adapter"})}}

    def load(self, adapter: str) -> tuple[PEAdapter]:
        return (PEAdapter.from_pretrained(adapter),)


class PEATextEncode:
    """Text in the adapter's language to conditioning; `width` and `height` are what Stable Diffusion XL is told."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"
    CATEGORY = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        size = ("INT", {"default": 1024, "min": 64, "max": LARGEST, "step": 8})
        text = ("STRING", {"multiline": True, "default": ""})
        devices = ["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"]
        required = {"adapter": ("PEA_ADAPTER",), "text": text, "width": size, "height": size, "device": (devices,)}
        return {"required": required}

    def encode(self, adapter: PEAdapter, text: str, width: int, height: int, device: str) -> tuple[Conditioning]:
        found = adapter.embed([text], torch.device(device), torch.float32)  # the sampler takes it to its own dtype
        with_it: dict[str, Any] = {}
        if "pooled_prompt_embeds" in found:
            with_it["pooled_output"] = found["pooled_prompt_embeds"].cpu()
            with_it |= dict(width=width, height=height, crop_w=0, crop_h=0, target_width=width, target_height=height)
        return ([[found["prompt_embeds"].cpu(), with_it]],)


NODE_CLASS_MAPPINGS = {"PEALoadAdapter": PEALoadAdapter, "PEATextEncode": PEATextEncode}
NODE_DISPLAY_NAME_MAPPINGS = {"PEALoadAdapter": "Load PEA adapter", "PEATextEncode": "PEA Text Encode"}
