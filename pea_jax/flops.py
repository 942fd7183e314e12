"""Floating-point operations of a computation, and what a device can do of them in a second."""

import math
import re
from typing import Any, NamedTuple

import jax
from jax.extend import core

# bfloat16 operations a second of one device without sparsity, by words of its `device_kind`, the longer names first.
# Sources: the makers' data sheets (NVIDIA: tensor cores, float32 accumulation; Google Cloud: TPU system architecture).
PEAKS = {
    "TPU v6 lite": 918e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v4": 275e12,
    "B200": 2250e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX 4090": 165e12,
}


# Matrix products in an attention kernel of cuDNN, `[B, T, heads, head_dim]` each: the weights, and what they weigh; in
# the backward pass the weights again, and four for the gradients.
CUDNN = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 5}
# Share of the products in a kernel of a backward pass that is no repetition: three of four for keys and values in
# splash, where the weights are computed again, and one of three for the queries; four of cuDNN's five.
FIRST_TIME = {"splash_mha_dkv": 3 / 4, "splash_mha_dq": 1 / 3, "dot_product_attention_bwd": 4 / 5}


class Operations(NamedTuple):
    """Of one step on all devices: what the model takes (MFU), and with that what is computed again (HFU)."""

    model: float
    executed: float


def operations(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> Operations:
    return Operations(count(jaxpr, again=False), count(jaxpr))


def peak_flops(device: jax.Device) -> float | None:
    """Operations a second of a device in bfloat16; None where they are not known, as on a CPU or a part of a GPU."""
    name = device.device_kind
    if re.search(r"\b(MIG|Laptop|4090 D)\b", name):
        return None
    return next((peak for kind, peak in PEAKS.items() if re.search(rf"\b{kind}\b", name)), None)


def count(jaxpr: core.ClosedJaxpr | core.Jaxpr, *, again: bool = True) -> float:
    """Operations of all matrix products and convolutions, a multiplication and an addition counting as two.

    Everything else is left out, as is usual: on an accelerator it waits for memory, not for arithmetic. The body of a
    loop counts as often as it runs, that of a `shard_map` on all its devices, of a condition the dearest branch.

    Args:
      again: whether what a backward pass computes a second time counts, in rematerialization and within attention
        kernels: what the devices do (HFU), instead of what the model takes (MFU). What kernels pad counts in both.
    """
    body = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    return sum(_operations(equation, again) for equation in body.eqns)


def _operations(equation: Any, again: bool) -> float:
    name, parameters = equation.primitive.name, equation.params
    if not again and "rematted_computation" in str(equation.source_info.name_stack):
        return 0.0
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        outputs = kernel.shape[parameters["dimension_numbers"].rhs_spec[0]]
        dilation = math.prod(parameters["lhs_dilation"])  # the zeros between are not multiplied
        return 2.0 * equation.outvars[0].aval.size * kernel.size / outputs / dilation
    share = 1.0 if again else _first_time(equation)
    if name in CUDNN:
        query, key = (variable.aval.shape for variable in equation.invars[:2])
        return share * CUDNN[name] * 2.0 * math.prod(query) * key[1]
    if name == "cond":
        return max(count(branch, again=again) for branch in parameters["branches"])
    inner = [value for value in jax.tree.leaves(parameters, is_leaf=_is_jaxpr) if _is_jaxpr(value)]
    return share * _times(name, parameters) * sum(count(jaxpr, again=again) for jaxpr in inner)


def _first_time(equation: Any) -> float:
    name = equation.primitive.name
    label = str(equation.params.get("name")) if name == "pallas_call" else name
    return next((share for kernel, share in FIRST_TIME.items() if label.startswith(kernel)), 1.0)


def _times(name: str, parameters: Any) -> int:
    """How often the jaxpr within an operation is run."""
    if name == "shard_map":
        return parameters["mesh"].size
    if name == "pallas_call":
        return math.prod(parameters["grid_mapping"].grid)
    return parameters.get("length", 1)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, core.ClosedJaxpr | core.Jaxpr)
