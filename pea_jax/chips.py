"""Accelerators: those of a TPU topology that is not there, and how much memory one has."""

import importlib.util
import os
import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from pea_jax.errors import PeaError

# What the compiler for TPUs says when a program is too large: what it takes, and what a chip has.
_SIZE = r"([\d.]+)([KMGT]?)"
_TOO_LARGE = re.compile(rf"(?:Used {_SIZE} of {_SIZE} hbm|\({_SIZE}\) exceeds available HBM \({_SIZE}\))")
# What libtpu asks for where there is no TPU, and complains of on the screen; it is installed there for the plan.
_NO_TPU = dict(TPU_ACCELERATOR_TYPE="v5litepod-1", TPU_WORKER_HOSTNAMES="localhost", TPU_WORKER_ID="0")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def answer_libtpu() -> None:
    """Tell libtpu by its own variables what it would look for in vain on a machine without TPUs.

    Before JAX's first device is asked for. Where there are none, JAX sets TPU_SKIP_MDS_QUERY when it is imported.
    """
    if "TPU_SKIP_MDS_QUERY" in os.environ:
        for name, value in _NO_TPU.items():
            os.environ.setdefault(name, value)


def topology_devices(name: str) -> list[jax.Device]:
    """The chips of a TPU slice by its name, `v5e:4x4` or `v5p:2x2x2`, for compiling alone.

    Raises:
      PeaError: there is no such slice, or libtpu, the compiler, is not installed.
    """
    answer_libtpu()
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # beside a training, or a second plan
    from jax.experimental import topologies

    if importlib.util.find_spec("libtpu") is None:
        raise PeaError(f"--topology {name}: the compiler for TPUs is not installed: run `pip install 'pea_jax[tpu]'`")
    try:
        return list(topologies.get_topology_desc(name, "tpu", **_asked_for(name)).devices)
    except Exception as error:  # of several kinds, by what is wrong with the name
        reason = " ".join(str(error).split())[:200]
        raise PeaError(f"--topology {name}: not a TPU slice ({reason}); write v5e:4x4, v6e:2x2, v4:2x2x2") from error


def _asked_for(name: str) -> dict[str, Any]:
    """What the name of a topology leaves open; libtpu reads capitals too, and `=` or `_` in place of the colon."""
    if re.match(r"(TPU )?v4[:=_]", name, re.IGNORECASE):
        return dict(chip_config_name="megacore")  # else the two cores of a chip are two devices
    if re.search(r"v[56]e[:=_]1x1$", name, re.IGNORECASE):
        return dict(chips_per_host_bounds=(1, 1, 1))  # a machine of one chip; else they have 2x2
    return {}


def memory_of(device: jax.Device) -> int | None:
    """Bytes of memory that programs may use on a device; None where that is not known."""
    if device.platform == "cpu":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()
    if device.platform == "tpu":
        return _asked_of_the_compiler(device)
    statistics = device.memory_stats()
    return statistics.get("bytes_limit") if statistics else None


def too_large(error: Exception) -> tuple[int, int] | None:
    """Bytes that a program for a TPU takes and that there are, from the compiler's error; None for other errors."""
    found = _TOO_LARGE.search(str(error))
    if found is None:
        return None
    used, used_unit, limit, limit_unit = (group for group in found.groups() if group is not None)
    return int(float(used) * _UNITS[used_unit]), int(float(limit) * _UNITS[limit_unit])


def _asked_of_the_compiler(device: jax.Device) -> int | None:
    """By a program that fits no chip."""
    huge = jax.ShapeDtypeStruct((2**42,), jnp.int8, sharding=SingleDeviceSharding(device))
    try:
        jax.jit(lambda x: x + 1).lower(huge).compile()
    except Exception as error:
        sizes = too_large(error)
        return sizes[1] if sizes else None
    return None
