"""A page to try prompts in an adapter's language beside the English model, from the same noise.

python -m pea_jax.pytorch.page --adapter runs/ru-emoji/adapter
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
from typing import Any, NoReturn

import torch
from PIL.Image import Image

from pea_jax.errors import PeaError
from pea_jax.pytorch.adapter import PEAdapter
from pea_jax.weights.adapter_layouts import read_config
from pea_jax.weights.config_files import one_line
from pea_jax.weights.locations import locate


@dataclasses.dataclass
class Drawing:
    """A pipeline with its English encoders, an adapter, and the size of the pictures."""

    pipe: Any
    adapter: PEAdapter
    width: int
    height: int

    def draw(
        self, prompt: str, english: str, negative_prompt: str, steps: float, guidance_scale: float, seed: float | None
    ) -> tuple[Image | None, Image | None]:
        """The picture of `prompt` through the adapter and that of `english` without; None where there is no prompt.

        Without a seed, as where its field was cleared, it is 0.
        """
        settings = dict(num_inference_steps=int(steps), guidance_scale=guidance_scale, seed=int(seed or 0))
        native = plain = None
        if prompt.strip():
            guided = guidance_scale > 1
            conditioning = self.adapter.encode(self.pipe, prompt, negative_prompt, guidance=guided)
            native = self._run(settings, **conditioning)
        if english.strip():
            plain = self._run(settings, prompt=english)
        return native, plain

    def _run(self, settings: dict[str, Any], **text: Any) -> Image:
        others = {name: value for name, value in settings.items() if name != "seed"}
        noise = torch.Generator().manual_seed(settings["seed"])
        return self.pipe(**text, **others, width=self.width, height=self.height, generator=noise).images[0]


def load(adapter: str, base_model: str | None) -> tuple[Drawing, dict[str, Any]]:
    """The drawing that an adapter directory describes, and its config.json.

    Args:
      adapter: a directory, or OWNER/NAME on the Hugging Face Hub.
      base_model: another one than it was trained for.

    Raises:
      PeaError: the adapter or the base model is missing, broken or not named, or one was not made for the other.
    """
    from diffusers import DiffusionPipeline

    config = read_config(adapter)
    if not (name := base_model or config.get("base_model")):
        raise PeaError(f"{adapter}: its config.json names no base_model; give --base_model")
    folder = locate(name)
    if folder.is_file():
        raise PeaError(f"{name}: a file; the page takes a diffusers folder or OWNER/NAME on the Hub")
    device, dtype = ("cuda", torch.float16) if torch.cuda.is_available() else ("cpu", torch.float32)
    network = PEAdapter.from_pretrained(adapter)
    try:
        pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=dtype, **_left_out(folder)).to(device)
    except (OSError, ValueError) as error:
        raise PeaError(f"{name}: diffusers cannot load it as a pipeline ({one_line(error)})") from error
    network.check(pipe)
    width, height = config.get("training", {}).get("picture_size", (1024, 1024))
    return Drawing(pipe, network, width, height), config


def _left_out(folder: pathlib.Path) -> dict[str, None]:
    """What the index of Stable Diffusion 1.5 names beside the model; from the Hub it is not downloaded."""
    path = folder / "model_index.json"
    index = json.loads(path.read_bytes()) if path.is_file() else {}
    return dict.fromkeys(name for name in ("safety_checker", "feature_extractor") if name in index)


def build(drawing: Drawing, language: str, evaluation: dict[str, Any]) -> Any:
    """The page, a `gradio.Blocks`.

    Args:
      language: named beside the prompt.
      evaluation: has the first values of `steps` and `guidance_scale`.

    Raises:
      PeaError: gradio is not installed.
    """
    gradio = _gradio()
    with gradio.Blocks(title="pea_jax", analytics_enabled=False) as page:
        with gradio.Row():
            prompt = gradio.Textbox(label=f"Prompt ({language})")
            english = gradio.Textbox(label="Prompt (en), for the model without the adapter")
        negative = gradio.Textbox(label=f"Negative prompt ({language})")
        with gradio.Row():
            steps = gradio.Slider(1, 100, evaluation.get("steps", 30), step=1, label="Steps")
            scale = gradio.Slider(0, 15, evaluation.get("guidance_scale", 5.0), label="Guidance scale")
            seed = gradio.Number(0, precision=0, label="Seed")
        button = gradio.Button("Draw", variant="primary")
        with gradio.Row():
            native, plain = gradio.Image(label=language), gradio.Image(label="en")
        inputs = [prompt, english, negative, steps, scale, seed]
        # One event, which has one queue: a pipeline keeps the state of its scheduler, and draws one thing at a time.
        gradio.on([button.click, prompt.submit, english.submit], drawing.draw, inputs, [native, plain])
    return page


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # it would report the start of the page to its makers
    try:
        import gradio
    except ImportError as error:
        raise PeaError("the page takes a package: run `pip install 'pea_jax[gradio]'`") from error
    return gradio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, help="adapter directory, or OWNER/NAME on the Hugging Face Hub")
    parser.add_argument("--base_model", help="another base model of the same shape: folder, or OWNER/NAME on the Hub")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=int, default=7860)
    args = parser.parse_args()
    try:
        _gradio()
        drawing, config = load(args.adapter, args.base_model)
        page = build(drawing, config.get("language", "?"), config.get("training", {}).get("evaluation", {}))
        _launch(page, args.host, args.port)
    except PeaError as error:
        _end_with(str(error))
    except PermissionError as error:
        _end_with(f"{error.filename}: {error.strerror}; name another place")


def _end_with(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def _launch(page: Any, host: str, port: int) -> None:
    """Serves the page until Ctrl-C."""
    try:
        page.launch(server_name=host, server_port=port, share=False)
    except OSError as error:  # gradio's, for a port that another program has
        raise PeaError(f"--host {host} --port {port}: cannot be served there; name another port") from error


if __name__ == "__main__":
    main()
