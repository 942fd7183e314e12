"""The spatial transformer and its parts against PyTorch."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock as TorchBlock
from diffusers.models.attention import FeedForward as TorchFeedForward
from diffusers.models.attention_processor import Attention as TorchAttention
from diffusers.models.transformers.transformer_2d import Transformer2DModel

from pea_jax.models.transformer_2d import Attention, BasicTransformerBlock, FeedForward, Transformer2D
from tests.torch_oracle import compiled, filled, nchw, nhwc, normal, randomised, relative_error

FLOAT32 = {"dtype": jnp.float32, "param_dtype": jnp.float32}
WIDTHS = [(32, 2, 24), (48, 3, 7), (20, 5, 64)]


@pytest.mark.parametrize(("features", "heads", "context_features"), WIDTHS)
def test_cross_attention(features, heads, context_features):
    oracle = randomised(TorchAttention(features, context_features, heads=heads, dim_head=features // heads))
    layer = filled(Attention(features, heads, context_features=context_features, **FLOAT32), oracle)
    x, context = normal(3, 10, features), normal(3, 4, context_features, seed=1)
    expected = oracle(torch.from_numpy(x), torch.from_numpy(context))
    assert relative_error(layer(x, context), expected.detach()) <= 1e-4


@pytest.mark.parametrize(("features", "heads", "_"), WIDTHS)
def test_self_attention_with_bias(features, heads, _):
    oracle = randomised(TorchAttention(features, heads=heads, dim_head=features // heads, bias=True))
    x = normal(3, 10, features)
    output = compiled(filled(Attention(features, heads, qkv_bias=True, **FLOAT32), oracle))(x)
    assert relative_error(output, oracle(torch.from_numpy(x)).detach()) <= 1e-4


@pytest.mark.parametrize("features", [8, 20, 64])
def test_feed_forward(features):
    oracle = randomised(TorchFeedForward(features, activation_fn="geglu"))
    x = normal(2, 9, features)
    output = compiled(filled(FeedForward(features, **FLOAT32), oracle))(x)
    assert relative_error(output, oracle(torch.from_numpy(x)).detach()) <= 1e-4


@pytest.mark.parametrize(("features", "heads", "context_features"), WIDTHS)
def test_transformer_block(features, heads, context_features):
    oracle = randomised(TorchBlock(features, heads, features // heads, cross_attention_dim=context_features))
    layer = filled(BasicTransformerBlock(features, heads, context_features=context_features, **FLOAT32), oracle)
    x, context = normal(3, 10, features), normal(3, 4, context_features, seed=1)
    expected = oracle(torch.from_numpy(x), encoder_hidden_states=torch.from_numpy(context))
    assert relative_error(layer(x, context), expected.detach()) <= 1e-4


@pytest.mark.parametrize("use_linear_projection", [True, False])
@pytest.mark.parametrize(
    ("shape", "heads", "num_layers"), [((2, 4, 4, 32), 2, 1), ((3, 5, 3, 24), 3, 2), ((1, 1, 6, 40), 7, 1)]
)
def test_transformer_2d(shape, heads, num_layers, use_linear_projection):
    """The last one has channels that its heads do not divide. Small input: an epsilon other than 1e-6 would show."""
    oracle = randomised(
        Transformer2DModel(
            heads,
            shape[-1] // heads,
            in_channels=shape[-1],
            num_layers=num_layers,
            cross_attention_dim=12,
            norm_num_groups=4,
            use_linear_projection=use_linear_projection,
        )
    )
    layer = Transformer2D(
        shape[-1],
        num_layers,
        num_heads=heads,
        context_features=12,
        num_groups=4,
        use_linear_projection=use_linear_projection,
        **FLOAT32,
    )
    x, context = 1e-2 * normal(*shape), normal(shape[0], 5, 12, seed=1)
    mask = np.array([[True, False, True, True, False]] * shape[0])
    bias = torch.from_numpy(np.where(mask, 0.0, -1e4).astype(np.float32))[:, None]
    expected = oracle(nchw(x), torch.from_numpy(context), encoder_attention_mask=bias, return_dict=False)[0]
    assert relative_error(compiled(filled(layer, oracle))(x, context, mask[:, None, None]), nhwc(expected)) <= 1e-4
