"""The files of launch/: linted, and run with what only records how it is called."""

import os
import pathlib
import re
import stat
import subprocess
import sys
import time

import pytest
import yaml

from pea_jax import config as configs
from tests.commands import ROOT

LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
JOBSETS = sorted(LAUNCH.glob("gke_*.yaml"))


def stand_in(folder: pathlib.Path, name: str, body: str) -> None:
    """A command `name` in `folder` that does what `body` says."""
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def run(script: str, *arguments: str, path: pathlib.Path | None = None, **environment: str):
    search = os.pathsep.join([str(path), os.environ["PATH"]]) if path else os.environ["PATH"]
    return subprocess.run(
        ["bash", LAUNCH / script, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PATH": search} | environment,
        timeout=60,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: pathlib.Path):
    checker = pathlib.Path(sys.executable).with_name("shellcheck")
    result = subprocess.run([checker, script], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_every_file_is_short_and_says_what_it_is():
    for path in LAUNCH.iterdir():
        lines = path.read_text().splitlines()
        assert len(lines) < 80 and any(line.startswith("# ") for line in lines[:3]), path


def test_local_processes_know_one_another(tmp_path):
    said = 'echo "$JAX_PROCESS_ID of $JAX_NUM_PROCESSES, $JAX_NUM_CPU_DEVICES devices, $JAX_COORDINATOR_ADDRESS: $*"'
    stand_in(tmp_path, "python", said)
    result = run("local.sh", "2", "-m", "x", PYTHON=str(tmp_path / "python"), DEVICES="3", PORT="99")
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.splitlines()) == [f"{i} of 2, 3 devices, localhost:99: -m x" for i in range(2)]


def test_one_local_process_that_fails_ends_all(tmp_path):
    stand_in(tmp_path, "python", "[ $JAX_PROCESS_ID = 1 ] && exit 7; exec sleep 50")
    assert run("local.sh", "2", "-m", "x", PYTHON=str(tmp_path / "python")).returncode == 7


@pytest.mark.parametrize("code", [0, 75])
def test_local_processes_that_are_told_to_end_say_how_they_did(tmp_path, code):
    """One of them has ended by then."""
    said = f'[ $JAX_PROCESS_ID = 1 ] && exit; trap "sleep 1; exit {code}" TERM; touch {tmp_path}/on; sleep 50 & wait'
    stand_in(tmp_path, "python", said)
    environment = os.environ | {"PYTHON": str(tmp_path / "python")}
    process = subprocess.Popen(["bash", LAUNCH / "local.sh", "2", "-m", "x"], env=environment)
    while not (tmp_path / "on").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    process.terminate()
    assert process.wait(timeout=20) == code


def test_slurm_gives_a_process_all_gpus_of_its_node_and_all_cores_of_the_job(tmp_path):
    stand_in(tmp_path, "srun", 'echo "$JAX_LOCAL_DEVICE_IDS" "$@"')
    given = dict(SLURM_SUBMIT_DIR=str(ROOT), SLURM_GPUS_ON_NODE="4")
    alone = run("slurm.sbatch", path=tmp_path, **given)
    assert alone.stdout.startswith("0,1,2,3 --kill-on-bad-exit=1 .venv/bin/python")
    result = run("slurm.sbatch", path=tmp_path, **given, SLURM_CPUS_PER_TASK="32")
    assert result.returncode == 0, result.stderr
    options = "--kill-on-bad-exit=1 --cpus-per-task=32"
    assert result.stdout.startswith(f"0,1,2,3 {options} .venv/bin/python -m pea_jax.train --config configs/")
    assert result.stdout.endswith("--distributed --terminated_code=75\n")
    check_fields(result.stdout)


@pytest.mark.parametrize(("code", "queued_again"), [(0, False), (1, False), (75, True)])
def test_slurm_queues_a_job_again_that_was_out_of_time(tmp_path, code, queued_again):
    stand_in(tmp_path, "srun", f"exit {code}")
    stand_in(tmp_path, "scontrol", 'echo "$@"')
    result = run("slurm.sbatch", path=tmp_path, SLURM_SUBMIT_DIR=str(ROOT), SLURM_JOB_ID="5")
    assert result.returncode == code
    assert result.stdout == ("requeue 5\n" if queued_again else "")


def test_tpu_vms_are_made_once_and_trained_on(tmp_path):
    stand_in(tmp_path, "gcloud", f'echo "$@" >> {tmp_path}/calls; [ "$4" != describe ] || [ -e {tmp_path}/made ]')
    assert run("tpu_vm.sh", path=tmp_path).returncode == 0
    (tmp_path / "made").touch()
    assert run("tpu_vm.sh", path=tmp_path).returncode == 0
    assert run("tpu_vm.sh", "delete", path=tmp_path).returncode == 0
    calls = (tmp_path / "calls").read_text()
    verbs = re.findall(r"^compute tpus tpu-vm (\w+) pea-jax", calls, re.M)
    assert verbs == ["describe", "create", "ssh", "ssh", "describe", "ssh", "ssh", "delete"]
    assert calls.count("--worker=all") == 4 and "pea_jax.train --distributed" in calls
    check_fields(calls)


def test_xpk_gets_one_workload(tmp_path):
    stand_in(tmp_path, "xpk", 'echo "$@"')
    result = run("xpk.sh", path=tmp_path)
    assert result.stdout.startswith("workload create --workload=pea-jax-") and "--num-slices=1" in result.stdout
    assert "--restart-on-exit-codes=1,75 " in result.stdout  # XPK restarts after no other codes below 127 but 42
    check_fields(result.stdout)


@pytest.mark.parametrize("path", JOBSETS, ids=lambda path: path.name)
def test_jobset(path: pathlib.Path):
    """What the format asks for, and what the numbers in it have to do with one another."""
    jobset = yaml.safe_load(path.read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert job["parallelism"] == job["completions"] and pod["restartPolicy"] == "Never" and job["backoffLimit"] == 0
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    chips = container["resources"]["limits"]
    if "google.com/tpu" in chips:
        width, height = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
        assert int(width) * int(height) == job["parallelism"] * chips["google.com/tpu"]
        assert "--distributed" in container["command"]
    else:
        environment = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert environment["JAX_NUM_PROCESSES"] == str(job["parallelism"]) and job["completionMode"] == "Indexed"
        name = jobset["metadata"]["name"]
        host, port = environment["JAX_COORDINATOR_ADDRESS"].split(":")
        assert host == f"{name}-{replicated['name']}-0-0.{name}"
        assert int(port) in [entry["containerPort"] for entry in container["ports"]]
    check_fields(" ".join([*container["command"], *container["args"]]))


def test_skypilot():
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    known = {"name", "num_nodes", "resources", "workdir", "file_mounts", "envs", "setup", "run"}
    assert task.keys() == known and task["num_nodes"] > 1
    for name in ("setup", "run"):
        assert subprocess.run(["bash", "-n"], input=task[name], text=True).returncode == 0
    assert set(re.findall(r"\$\{?([A-Z]+)\b", task["run"])) <= set(task["envs"])
    check_fields(task["run"])


def check_fields(text: str) -> None:
    """Every field of the config that a command sets, and every config it names, exists."""
    fields = re.findall(r"--config\.([\w.]+)=", text)
    for field in fields:
        value = configs.base("ru")
        for part in field.split("."):
            value = value[part]
    for path in re.findall(r"configs/\w+\.py", text):
        assert (ROOT / path).is_file()
    assert "pea_jax.train" in text


@pytest.mark.parametrize("name", ["gke_gpu.yaml", "gke_tpu.yaml", "skypilot.yaml", "slurm.sbatch", "xpk.sh"])
def test_a_cluster_is_told_of_an_interruption(name):
    """Exit code 0 would be taken for the end of the training."""
    assert re.search(r"--terminated_code=(75|\$TERMINATED)", (LAUNCH / name).read_text())
