"""English models of other sizes: their widths, and that their folder is a whole model with the shipped encoders."""

from flax import nnx

from pea_jax.text.stable_diffusion import load_conditioner
from pea_jax.weights import load_unet, load_vae
from tools.teacher import sizes, unet


def count(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_shipped_size_lies_between_the_others():
    small, shipped, large = (
        count(unet.build(widths)) for widths in (sizes.SIZES["small"], unet.WIDTHS, sizes.SIZES["large"])
    )
    assert shipped == 14_006_320
    assert small < shipped / 2 and large > 2 * shipped


def test_the_folder_is_a_whole_model(tmp_path):
    denoiser = unet.build(sizes.SIZES["small"])
    (tmp_path / "log.jsonl").write_text("{}\n")
    sizes.assemble(denoiser, tmp_path / "model", tmp_path / "log.jsonl")
    loaded = load_unet(tmp_path / "model")
    assert sum(leaf.size for leaf in nnx.to_flat_state(nnx.state(loaded)).leaves) == count(denoiser)
    assert load_vae(tmp_path / "model").config.latent_channels == loaded.config.in_channels
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "model").rglob("*.safetensors"))
    prompt_embeds = load_conditioner(tmp_path / "model").encode(["red apple"]).prompt_embeds
    assert prompt_embeds.shape[-1] == loaded.config.prompt_embed_dim


def test_what_was_begun_is_made_anew(tmp_path):
    (tmp_path / "text.partial" / "text_encoder").mkdir(parents=True)
    sizes.prepare(tmp_path)
    assert {path.name for path in (tmp_path / "text").iterdir()} == {
        "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"
    }  # fmt: skip
    assert not (tmp_path / "text.partial").exists()
