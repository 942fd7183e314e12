"""The UNet against PyTorch diffusers: prediction, features, gradients, and the full SDXL configuration."""

import math
import time

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
from pea_jax.weights.torch_names import torch_axes, torch_name
from tests.torch_oracle import nchw, nhwc, normal, quick_jit, randomised, relative_error

SDXL = dict(
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    addition_embed_type="text_time",
    use_linear_projection=True,
)
SDXL_BASE = dict(
    SDXL,
    block_out_channels=(320, 640, 1280),
    layers_per_block=2,
    transformer_layers_per_block=[1, 2, 10],
    attention_head_dim=[5, 10, 20],
    cross_attention_dim=2048,
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
    sample_size=128,
)
CONFIGS = {
    "sdxl": dict(
        SDXL,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        transformer_layers_per_block=[1, 2, 1],
        attention_head_dim=[1, 2, 3],
        cross_attention_dim=24,
        norm_num_groups=8,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=20 + 6 * 8,
    ),
    "odd": dict(
        SDXL,
        in_channels=5,
        out_channels=3,
        block_out_channels=(20, 44, 28),
        layers_per_block=[1, 2, 1],
        transformer_layers_per_block=[1, [2, 1], 1],
        reverse_transformer_layers_per_block=[[1, 2], [2, 1, 1], 1],
        attention_head_dim=[1, 4, 3],
        cross_attention_dim=18,
        use_linear_projection=False,
        norm_num_groups=4,
        norm_eps=1e-3,
        addition_time_embed_dim=6,
        projection_class_embeddings_input_dim=11 + 6 * 6,
    ),
    "sd15": dict(
        block_out_channels=(16, 32, 32, 32),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=24,
        norm_num_groups=8,
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
# Batch, height, width, tokens.
SIZES = {"sdxl": (2, 8, 8, 7), "odd": (3, 13, 10, 5), "sd15": (2, 16, 8, 7), "no_mid": (1, 5, 7, 3)}


def inputs(name: str) -> dict[str, np.ndarray]:
    config = CONFIGS[name]
    batch, height, width, tokens = SIZES[name]
    arrays = {
        "sample": normal(batch, height, width, config.get("in_channels", 4)),
        "timesteps": np.array([7, 981, 400][:batch], np.int32),
        "prompt_embeds": normal(batch, tokens, config["cross_attention_dim"], seed=1),
    }
    if "addition_embed_type" in config:
        added = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        arrays["text_embeds"] = normal(batch, added, seed=2)
        arrays["time_ids"] = np.array([[64, 48, 0, 3, 64, 64]] * batch, np.float32)
    return arrays


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory):
    """Name, PyTorch model, our model loaded from what the PyTorch model saved."""
    folder = tmp_path_factory.mktemp(request.param)
    oracle = randomised(UNet2DConditionModel(**CONFIGS[request.param]))
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


def test_prediction_features_and_gradients(pair):
    name, oracle, unet = pair
    arrays = inputs(name)
    prediction, features, _, leaves = call_torch(oracle, arrays)
    weight = normal(*nhwc(prediction).shape, seed=3)
    (prediction * nchw(weight)).sum().backward()

    @quick_jit
    def run(learned, fixed):
        def scalar(learned):
            prediction, features = unet(**learned, **fixed)
            return (prediction * weight).sum(), (prediction, features)

        return jax.grad(scalar, has_aux=True)(learned)

    learned = {key: arrays.pop(key) for key in LEARNED if key in arrays}
    gradients, (ours, our_features) = run(learned, arrays)
    assert relative_error(ours, nhwc(prediction)) <= 1e-4
    assert our_features.keys() == features.keys()
    for key, feature in features.items():
        assert relative_error(our_features[key], feature) <= 1e-4, key
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
    ours, our_features = quick_jit(unet)(
        **arrays, encoder_attention_mask=mask, down_block_additional_residuals=down, mid_block_additional_residual=mid
    )
    assert relative_error(ours, nhwc(prediction)) <= 1e-4
    for key, feature in features.items():
        assert relative_error(our_features[key], feature) <= 1e-4, key


def test_full_sdxl_has_the_parameters_of_pytorch():
    with torch.device("meta"):
        oracle = UNet2DConditionModel(**SDXL_BASE)
    expected = {name: tuple(value.shape) for name, value in oracle.state_dict().items()}
    start = time.process_time()
    config = UNetConfig.from_dict(SDXL_BASE)
    model = nnx.eval_shape(lambda: UNet2DCondition(config, rngs=nnx.Rngs(0)))
    assert time.process_time() - start < 5
    ours = {
        torch_name(path): tuple(np.array(value.shape)[np.argsort(torch_axes(path, value.ndim))])
        for path, value in nnx.to_flat_state(nnx.state(model))
    }
    assert ours == expected
    assert sum(map(math.prod, ours.values())) == 2_567_463_684


def test_text_time_conditioning_must_be_given():
    config = UNetConfig.from_dict(CONFIGS["sdxl"])
    graphdef, state = nnx.split(nnx.eval_shape(lambda: UNet2DCondition(config)))
    arrays = jnp.zeros((1, 8, 8, 4)), jnp.zeros(1), jnp.zeros((1, 7, 24))
    with pytest.raises(PeaError, match="text_embeds"):
        jax.eval_shape(lambda state: nnx.merge(graphdef, state)(*arrays), state)
