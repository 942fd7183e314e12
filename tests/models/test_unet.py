"""The UNet against PyTorch diffusers: prediction, features and gradients of small models of every base model's
architecture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.models.unet import UNet2DCondition, UNetConfig
from pea_jax.weights import load_unet
from tests import published_configs
from tests.torch_oracle import compiled, nchw, nhwc, normal, randomised, relative_error

# The other base models differ from one of these in no field that shapes the network, or in `in_channels` alone.
PUBLISHED = ("sdxl-inpainting-0.1", "ssd-1b", "segmind-vega", "kolors", "sd-1.5-inpainting", "sd-2.1")
CONFIGS = {
    **{name: published_configs.small(published_configs.UNETS[name]) for name in PUBLISHED},
    "odd": dict(
        in_channels=5,
        out_channels=3,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(20, 44, 28),
        layers_per_block=[1, 2, 1],
        transformer_layers_per_block=[1, [2, 1], 1],
        reverse_transformer_layers_per_block=[[1, 2], [2, 1, 1], 1],
        attention_head_dim=[1, 4, 3],
        cross_attention_dim=18,
        encoder_hid_dim=9,
        norm_num_groups=4,
        norm_eps=1e-3,
        addition_embed_type="text_time",
        addition_time_embed_dim=6,
        projection_class_embeddings_input_dim=11 + 6 * 6,
    ),
    "no_mid": dict(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type=None,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 24),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=12,
        norm_num_groups=4,
        flip_sin_to_cos=False,
        freq_shift=1,
    ),
}
LEARNED = ("prompt_embeds", "text_embeds")


def inputs(name: str) -> dict[str, np.ndarray]:
    """Pictures whose size halves to no whole number."""
    config, (batch, height, width, tokens) = CONFIGS[name], (3, 13, 10, 5)
    arrays = {
        "sample": normal(batch, height, width, config.get("in_channels", 4)),
        "timesteps": np.array([7, 981, 400][:batch], np.int32),
        "prompt_embeds": normal(batch, tokens, config.get("encoder_hid_dim") or config["cross_attention_dim"], seed=1),
    }
    if config.get("addition_embed_type"):
        added = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        arrays["text_embeds"] = normal(batch, added, seed=2)
        arrays["time_ids"] = np.array([[64, 48, 0, 3, 64, 64]] * batch, np.float32)
    return arrays


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory):
    """Name, PyTorch model, our model loaded from what the PyTorch model saved."""
    folder = tmp_path_factory.mktemp(request.param)
    oracle = randomised(UNet2DConditionModel.from_config(CONFIGS[request.param]))
    oracle.save_pretrained(folder / "unet")
    return request.param, oracle, load_unet(folder)


def call_torch(oracle, arrays, **kwargs):
    """Prediction, features and skip connections as forward hooks see them, and the leaves of the gradient."""
    features, skips = {}, [torch.empty(())]

    def keep(name, output):
        hidden, more = output if isinstance(output, tuple) else (output, ())
        features[name] = nhwc(hidden)
        skips.extend(more)

    blocks = {f"{kind}_{i}": b for kind in ("down", "up") for i, b in enumerate(getattr(oracle, f"{kind}_blocks"))}
    if oracle.mid_block is not None:
        blocks["mid"] = oracle.mid_block
    handles = [b.register_forward_hook(lambda _, __, y, name=name: keep(name, y)) for name, b in blocks.items()]
    handles.append(oracle.conv_in.register_forward_hook(lambda _, __, y: skips.__setitem__(0, y)))
    leaves = {name: torch.from_numpy(arrays[name]).requires_grad_() for name in LEARNED if name in arrays}
    added = {
        "text_embeds": leaves.get("text_embeds"),
        "time_ids": torch.from_numpy(arrays.get("time_ids", np.zeros(0))),
    }
    prediction = oracle(
        nchw(arrays["sample"]),
        torch.from_numpy(arrays["timesteps"]),
        leaves["prompt_embeds"],
        added_cond_kwargs=added,
        return_dict=False,
        **kwargs,
    )[0]
    for handle in handles:
        handle.remove()
    return prediction, features, skips, leaves


def check_features(ours, oracle):
    assert ours.keys() == oracle.keys()
    for key, feature in oracle.items():
        assert relative_error(ours[key], feature) <= 1e-4, key


@pytest.mark.parametrize("pair", PUBLISHED, indirect=True)
def test_published_architectures(pair):
    """Not jitted: operations compiled for one of these models serve the others."""
    name, oracle, unet = pair
    arrays = inputs(name)
    with torch.no_grad():
        prediction, features, *_ = call_torch(oracle, arrays)
    ours, our_features = unet(**arrays)
    assert relative_error(ours, nhwc(prediction)) <= 1e-4
    check_features(our_features, features)


@pytest.mark.parametrize("pair", ["odd", "no_mid"], indirect=True)
def test_prediction_features_and_gradients(pair):
    name, oracle, unet = pair
    arrays = inputs(name)
    prediction, features, _, leaves = call_torch(oracle, arrays)
    weight = normal(*nhwc(prediction).shape, seed=3)
    (prediction * nchw(weight)).sum().backward()

    graphdef, params = nnx.split(unet)

    @jax.jit
    def run(params, learned, fixed):
        def scalar(learned):
            prediction, features = nnx.merge(graphdef, params)(**learned, **fixed)
            return (prediction * weight).sum(), (prediction, features)

        return jax.grad(scalar, has_aux=True)(learned)

    learned = {key: arrays.pop(key) for key in LEARNED if key in arrays}
    gradients, (ours, our_features) = run(params, learned, arrays)
    assert relative_error(ours, nhwc(prediction)) <= 1e-4
    check_features(our_features, features)
    for key, gradient in gradients.items():
        assert relative_error(gradient, leaves[key].grad) <= 1e-3, key


@pytest.mark.parametrize("pair", ["odd"], indirect=True)
def test_masked_tokens_and_controlnet_residuals(pair):
    name, oracle, unet = pair
    arrays = inputs(name)
    _, features, skips, _ = call_torch(oracle, arrays)
    mask = np.ones(arrays["prompt_embeds"].shape[:2], np.int32)
    mask[0, -2:] = 0
    down = [normal(*nhwc(skip).shape, seed=i) for i, skip in enumerate(skips)]
    mid = normal(*features["mid"].shape, seed=99)
    prediction, features, *_ = call_torch(
        oracle,
        arrays,
        encoder_attention_mask=torch.from_numpy(mask),
        down_block_additional_residuals=[nchw(x) for x in down],
        mid_block_additional_residual=nchw(mid),
    )
    ours, our_features = compiled(unet)(
        **arrays, encoder_attention_mask=mask, down_block_additional_residuals=down, mid_block_additional_residual=mid
    )
    assert relative_error(ours, nhwc(prediction)) <= 1e-4
    check_features(our_features, features)


def test_text_time_conditioning_must_be_given():
    config = UNetConfig.from_dict(CONFIGS["ssd-1b"])
    graphdef, state = nnx.split(nnx.eval_shape(lambda: UNet2DCondition(config)))
    arrays = jnp.zeros((1, 8, 8, 4)), jnp.zeros(1), jnp.zeros((1, 7, 24))
    with pytest.raises(PeaError, match="text_embeds"):
        jax.eval_shape(lambda state: nnx.merge(graphdef, state)(*arrays), state)
