"""The command, with an adapter for Stable Diffusion 1.5 and its base model as folder and as one file."""

import pathlib

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from pea_jax import adapter_folder, config, mesh
from pea_jax.distill import models
from pea_jax.sampling.pipeline import Sampling, TextToImage
from pea_jax.text.conditioner import AdapterConditioner
from tests import commands, tiny_sd15
from tests import language_clips as clips
from tests.tiny_text_models import random_bert

PROMPT, SIZE = "красное яблоко", 8


@pytest.fixture
def settings(tmp_path: pathlib.Path) -> ConfigDict:
    folder = tmp_path / "sd15"
    tiny_sd15.save(folder / "base")
    tiny_sd15.save_in_one_file(folder / "base", folder / "tuned.safetensors")
    size = clips.save_cased_tokenizer(folder / "text")
    random_bert(**clips.SMALL, vocab_size=size).save_pretrained(folder / "text")
    settings = config.sd15("ru", str(folder / "text"), context_length=12, hidden_dim=20)
    settings.base_model, settings.base_model_config = str(folder / "tuned.safetensors"), str(folder / "base")
    settings.dtype, settings.picture_size, settings.evaluation.steps = "float32", (SIZE, SIZE), 2
    return settings


def test_as_the_adapter_was_trained(settings: ConfigDict, tmp_path: pathlib.Path):
    """A base model in one file is found again by what the adapter's config.json says, and draws as its folder does."""
    frozen = models.load_models(settings, mesh.make_mesh())
    adapter_folder.save(tmp_path / "adapter", settings, models.new_adapter(settings, frozen), frozen.student, step=1)
    flags = dict(adapter=tmp_path / "adapter", prompt=PROMPT, out=tmp_path / "one.png")
    result = commands.run_forked(commands.command("generate", {}, **flags))
    assert result.returncode == 0, result.stderr
    prompts, negative = AdapterConditioner.from_pretrained(tmp_path / "adapter").encode_guided([PROMPT])
    pipeline = TextToImage.from_pretrained(settings.base_model_config)
    pictures = pipeline.generate(prompts, negative, Sampling(2, guidance_scale=7.5), height=SIZE, width=SIZE)
    assert pictures.std() > 10
    np.testing.assert_allclose(np.asarray(Image.open(tmp_path / "one.png")).astype(int), pictures[0], atol=1)
