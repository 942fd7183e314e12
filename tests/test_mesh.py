"""Meshes over hosts: what is gathered in every layer stays inside of one where it fits."""

import dataclasses

import jax
import pytest
from jax.experimental import topologies

from pea_jax import chips
from pea_jax.errors import PeaError
from pea_jax.mesh import AXES, make_mesh, make_mesh_for


@dataclasses.dataclass(frozen=True)
class GPU:
    """What JAX says of one."""

    id: int
    process_index: int
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100 80GB HBM3"
    slice_index: int = 0


def gpus(hosts: int, each: int) -> list[GPU]:
    return [GPU(i, i // each) for i in range(hosts * each)]


@pytest.mark.parametrize(
    ("hosts", "each", "fsdp", "hosts_of_a_row"),
    [(2, 8, 1, 1), (2, 8, 4, 1), (2, 8, 8, 1), (2, 8, 16, 2), (3, 4, 2, 1), (3, 4, 12, 3), (4, 1, 2, 2)],
)
def test_gpus_of_hosts(hosts: int, each: int, fsdp: int, hosts_of_a_row: int):
    mesh = make_mesh(fsdp=fsdp, devices=gpus(hosts, each))
    assert dict(mesh.shape) == dict(zip(AXES, (hosts * each // fsdp, fsdp), strict=True))
    assert sorted(device.id for device in mesh.devices.flat) == list(range(hosts * each))
    for row in mesh.devices:
        assert len({device.process_index for device in row}) == hosts_of_a_row


@pytest.mark.parametrize(("fsdp", "slices_of_a_row"), [(4, 1), (16, 1), (32, 2)])
def test_slices_of_tpus(fsdp: int, slices_of_a_row: int, monkeypatch: pytest.MonkeyPatch):
    chips.answer_libtpu()
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # beside another program that has it
    mesh = make_mesh(fsdp=fsdp, devices=topologies.get_topology_desc("v5e:4x4", "tpu", num_slices=2).devices)
    assert mesh.size == 32
    for row in mesh.devices:
        assert len({device.slice_index for device in row}) == slices_of_a_row


@pytest.mark.parametrize(
    ("cores", "batch_size", "mesh", "used"),
    [
        (2, 32, {}, 2),
        (6, 32, {}, 4),
        (12, 32, {}, 8),
        (64, 32, {}, 32),
        (7, 5, {}, 5),
        (6, 7, {}, 1),
        (6, 32, dict(fsdp=2), 4),
        (6, 36, dict(fsdp=3), 6),
        (6, 32, dict(data=1, fsdp=-1), 4),
    ],
)
def test_of_cores_as_many_as_can_share_a_batch(monkeypatch, cores: int, batch_size: int, mesh: dict, used: int):
    """The demo must run on any machine."""
    monkeypatch.setattr(jax, "devices", lambda: [GPU(i, 0, platform="cpu", device_kind="cpu") for i in range(cores)])
    found = make_mesh_for(batch_size, **mesh)
    assert found.size == used and found.shape["fsdp"] == (used if mesh.get("fsdp") == -1 else mesh.get("fsdp", 1))


def test_cores_that_cannot_share_a_batch_are_told_why(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [GPU(i, 0, platform="cpu", device_kind="cpu") for i in range(8)])
    with pytest.raises(PeaError, match="config.batch_size=30 must be a multiple of the 4 devices"):
        make_mesh_for(30, fsdp=4)
    with pytest.raises(PeaError, match="data=0 x fsdp=9 does not cover 8 devices"):
        make_mesh_for(18, fsdp=9)


def test_accelerators_must_share_a_batch(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: gpus(1, 6))
    with pytest.raises(PeaError, match="config.batch_size=32 must be a multiple of the 6 devices"):
        make_mesh_for(32)
    assert make_mesh_for(36).size == 6
    with pytest.raises(PeaError, match="config.batch_size=36 in 4 microbatches must be a multiple of the 6 devices"):
        make_mesh_for(36, microbatches=4)
    assert make_mesh_for(24, microbatches=4).size == 6


def test_what_hosts_cannot_share():
    with pytest.raises(PeaError, match="does not cover 16 devices"):
        make_mesh(fsdp=3, devices=gpus(2, 8))
    with pytest.raises(PeaError, match="cannot be shared by hosts with 8, 1 devices; change fsdp"):
        make_mesh(devices=[*gpus(1, 8), GPU(8, 1)])
