"""Floating-point operations of a computation, and what a device can do of them in a second."""

import math
from typing import Any

import jax
from jax.extend import core

# bfloat16 operations a second of one device without sparsity, by what its `device_kind` holds, the longer names first.
# Sources: the makers' data sheets (NVIDIA: tensor cores, float32 accumulation; Google Cloud: TPU system architecture).
PEAKS = {
    "TPU v6 lite": 918e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v4": 275e12,
    "B200": 2250e12,
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


def peak_flops(device: jax.Device) -> float | None:
    """Operations a second of a device in bfloat16; None where they are not known, as on a CPU."""
    return next((peak for kind, peak in PEAKS.items() if kind in device.device_kind), None)


def count(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> float:
    """Operations of all matrix products and convolutions, a multiplication and an addition counting as two.

    Everything else is left out, as is usual: on an accelerator it waits for memory, not for arithmetic. The body of a
    loop counts as often as it runs, of a condition the dearest branch. What rematerialization computes again is in the
    jaxpr of a gradient and counts again.
    """
    body = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    return sum(_operations(equation) for equation in body.eqns)


def _operations(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        outputs = kernel.shape[parameters["dimension_numbers"].rhs_spec[0]]
        dilation = math.prod(parameters["lhs_dilation"])  # the zeros between are not multiplied
        return 2.0 * equation.outvars[0].aval.size * kernel.size / outputs / dilation
    if name == "cond":
        return max(count(branch) for branch in parameters["branches"])
    inner = [value for value in jax.tree.leaves(parameters, is_leaf=_is_jaxpr) if _is_jaxpr(value)]
    return parameters.get("length", 1) * sum(count(jaxpr) for jaxpr in inner)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, core.ClosedJaxpr | core.Jaxpr)
