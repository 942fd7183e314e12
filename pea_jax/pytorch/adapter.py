"""An adapter and its text encoder, and what they give to a `diffusers` pipeline in place of its own text encoders.

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0")
adapter = PEAdapter.from_pretrained("runs/ru/adapter")
image = pipe(**adapter.encode(pipe, "красное яблоко")).images[0]
"""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pea_jax.errors import PeaError
from pea_jax.pytorch.text_encoder import TextEncoder, load_text_encoders
from pea_jax.weights.adapter_layouts import WEIGHTS, check_layout, find_adapter, open_published, read_config
from pea_jax.weights.stored import whole


class PEAdapter(nn.Module):
    """The network under its published names, and the text encoder that it was trained behind.

    Args:
      widths: of the projector, from the states of the text encoder to the pooled embedding, or to the tokens where
        nothing is pooled (Stable Diffusion 1.5).
      output_dim: of `fc`, from the pooled width to the tokens; None where nothing is pooled.
      use_bias: of the projector, as only the oldest published adapters have it.
      text_encoder: what gives the states.
    """

    def __init__(self, widths: Sequence[int], output_dim: int | None, use_bias: bool, text_encoder: TextEncoder):
        super().__init__()
        linears = [nn.Linear(a, b, bias=use_bias) for a, b in zip(widths, widths[1:], strict=False)]
        layers = [layer for linear in linears for layer in (linear, nn.GELU())][:-1]
        self.layernorm = nn.LayerNorm(widths[0])
        self.projector = nn.Sequential(*layers)
        self.fc = None if output_dim is None else nn.Linear(widths[-1], output_dim)
        self.text_encoder = [text_encoder]  # in a list: it is no part of the state dict

    @classmethod
    def from_pretrained(cls, name: str | pathlib.Path) -> "PEAdapter":
        """The adapter of a directory that training or export wrote, with its text encoder.

        Args:
          name: the directory, or OWNER/NAME of a model on the Hugging Face Hub.

        Raises:
          PeaError: something is missing or broken, or transformers has no network for the text encoder's files.
        """
        folder = find_adapter(name)
        rule = read_config(folder).get("text_encoder") or {}
        if not isinstance(rule.get("id"), str):
            raise PeaError(f"{folder / 'config.json'}: does not name its text_encoder")
        path = folder / WEIGHTS
        stored = open_published(path)
        places = check_layout(stored, source=str(path))
        tensors = {key: torch.from_numpy(np.asarray(whole(tensor), np.float32)) for key, tensor in stored.items()}
        linears = [tensors[f"projector.{place}.weight"] for place in places]
        widths = [linears[0].shape[1], *(linear.shape[0] for linear in linears)]
        output_dim = tensors["fc.weight"].shape[0] if "fc.weight" in tensors else None
        text_encoder = load_text_encoders(rule)
        if text_encoder.hidden_size != widths[0]:
            raise PeaError(
                f"{path}: takes states of width {widths[0]}, {rule['id']} gives {text_encoder.hidden_size}; "
                "name the text encoder that it was trained behind"
            )
        adapter = cls(widths, output_dim, "projector.0.bias" in tensors, text_encoder)
        try:
            adapter.load_state_dict(tensors, strict=True)
        except RuntimeError as error:
            raise PeaError(f"{path}: not an adapter ({' '.join(str(error).split())})") from error
        return adapter.eval().requires_grad_(False)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor | None]:
        """States `[B, L, D]` to `prompt_embeds` `[B, L, E]` and `pooled_prompt_embeds` `[B, P]` or None, in float32.

        Pooled is the mean over all L positions, padding included.
        """
        y = self.projector(self.layernorm(states.float()))
        if self.fc is None:
            return y, None
        return self.fc(nn.functional.gelu(y)), y.mean(dim=1)

    @torch.no_grad()
    def encode(
        self,
        pipe: Any,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] | None = None,
        num_images_per_prompt: int = 1,
        guidance: bool = True,
    ) -> dict[str, Tensor]:
        """The keyword arguments that stand for the prompts when `pipe` is called.

        The text encoder runs on the pipeline's device and in its UNet's dtype, the adapter in float32.

        Args:
          pipe: a pipeline of Stable Diffusion XL or 1.5: text to image, ControlNet, inpainting, image to image, LCM.
          prompt: one or several, in the adapter's language.
          negative_prompt: one for all, or as many; None: the empty one.
          num_images_per_prompt: how many pictures of each; do not tell the pipeline as well.
          guidance: False where the pipeline is called without guidance (`guidance_scale` of at most 1, as Turbo and LCM
            often are): then there are no negative embeddings.

        Returns:
          `prompt_embeds` `[N, L, E]`, for Stable Diffusion XL `pooled_prompt_embeds` `[N, P]`, and both with
          `negative_` before, N being prompts times pictures of each.

        Raises:
          PeaError: the pipeline is not made for such an adapter, there is no prompt, a prompt is no text or holds half
            of a surrogate pair, there are not as many negative prompts as prompts, or no pictures of each.
        """
        self.check(pipe)
        if not isinstance(num_images_per_prompt, int | np.integer) or num_images_per_prompt < 1:
            raise PeaError(f"num_images_per_prompt={num_images_per_prompt!r}: must be a whole number from 1 on")
        prompts = _listed("prompt", prompt)
        found = self._embed(pipe, prompts, num_images_per_prompt)
        if not guidance:
            return found
        negatives = _listed("negative_prompt", "" if negative_prompt is None else negative_prompt)
        if len(negatives) not in (1, len(prompts)):
            raise PeaError(f"{len(negatives)} negative prompts for {len(prompts)} prompts; give one, or one for each")
        negative = self._embed(pipe, negatives, num_images_per_prompt)
        times = len(prompts) // len(negatives)
        return found | {f"negative_{key}": value.repeat_interleave(times, dim=0) for key, value in negative.items()}

    @torch.no_grad()
    def embed(self, texts: Sequence[str], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        """`prompt_embeds` `[N, L, E]` and, for Stable Diffusion XL, `pooled_prompt_embeds` `[N, P]`, for no pipeline.

        Args:
          texts: in the adapter's language.
          device: where adapter and text encoder go, and stay.
          dtype: of the text encoder and of the result.

        Raises:
          PeaError: `texts` is one string, or no list of texts with one at least, or one holds half of a surrogate pair;
            or `device` is one without memory.
        """
        if device.type == "meta":  # as of a pipeline whose UNet alone is offloaded; what goes there does not come back
            raise PeaError("device meta holds no numbers; offload the whole pipeline, with enable_model_cpu_offload()")
        self.to(device, torch.float32)  # also where it was taken to the dtype of a pipeline
        prompt_embeds, pooled = self(self.text_encoder[0].encode(texts, device, dtype))
        found = dict(prompt_embeds=prompt_embeds) | ({} if pooled is None else dict(pooled_prompt_embeds=pooled))
        return {key: value.to(dtype) for key, value in found.items()}

    def check(self, pipe: Any) -> None:
        """Refuse a pipeline of another base model.

        Raises:
          PeaError: its UNet takes other embeddings than this adapter gives, or it has none.
        """
        if (unet := getattr(pipe, "unet", None)) is None:
            raise PeaError(f"{type(pipe).__name__}: has no UNet; this adapter goes with Stable Diffusion XL and 1.5")
        config = unet.config
        # Of Kolors it is the width before the UNet's own projection of the states; of most others it is None.
        width = config.get("encoder_hid_dim") or config.get("cross_attention_dim")
        takes = width, config.get("addition_embed_type") == "text_time"
        last = self.projector[-1] if self.fc is None else self.fc
        gives = last.out_features, self.fc is not None
        widths = takes[0] if isinstance(takes[0], list | tuple) else [takes[0]]
        if set(widths) != {gives[0]} or takes[1] != gives[1]:
            said = [f"{width} wide with{'' if pooled else 'out'} a pooled one" for width, pooled in (gives, takes)]
            raise PeaError(f"{type(pipe).__name__}: its UNet takes embeddings {said[1]}, this adapter gives {said[0]}")

    def _embed(self, pipe: Any, texts: list[str], copies: int) -> dict[str, Tensor]:
        # Where pipelines keep their modules on the CPU until their turn comes, that is what `device` names.
        device = getattr(pipe, "_execution_device", pipe.device)
        found = self.embed(texts, device, pipe.unet.dtype)  # that of the pipeline may be of a text encoder
        return {key: value.repeat_interleave(int(copies), dim=0) for key, value in found.items()}


def _listed(name: str, texts: Any) -> list[str]:
    """The argument of that name as a list: it is one text, or several in whatever has them in a row."""
    listed = [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, Iterable) else []
    if not listed or not all(isinstance(text, str) for text in listed):
        raise PeaError(f"{name}={texts!r}: must be a text, or a list of texts with one at least")
    return listed
