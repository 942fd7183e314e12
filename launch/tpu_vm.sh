#!/usr/bin/env bash
# Cloud TPU VMs by gcloud: makes the slice if it is not there, installs, and trains on all of its hosts.
# Edit, then: launch/tpu_vm.sh. The same command again goes on; `launch/tpu_vm.sh delete` gives the slice back.
set -euo pipefail

NAME=pea-jax
PROJECT=my-project
ZONE=us-west4-a
TYPE=v5litepod-16
RUNTIME=v2-alpha-tpuv5-lite                # v6e: v2-alpha-tpuv6e; v4: tpu-ubuntu2204-base
REPOSITORY=https://github.com/OWNER/pea_jax
SHARED=10.0.0.2:/shared                    # an NFS share (Filestore) for the work directory, on all hosts
COMMAND="python -m pea_jax.train --distributed --config configs/ru.py --workdir /shared/runs/ru --config.mesh.fsdp=4"

tpu=(gcloud compute tpus tpu-vm)
where=(--project="$PROJECT" --zone="$ZONE")
if [[ ${1:-} == delete ]]; then
  "${tpu[@]}" delete "$NAME" "${where[@]}"
  exit
fi
if ! "${tpu[@]}" describe "$NAME" "${where[@]}" >/dev/null 2>&1; then
  "${tpu[@]}" create "$NAME" "${where[@]}" --accelerator-type="$TYPE" --version="$RUNTIME"
fi
on_all_hosts() { "${tpu[@]}" ssh "$NAME" "${where[@]}" --worker=all --command="$1"; }
on_all_hosts "
  set -e
  sudo apt-get -o DPkg::Lock::Timeout=600 install -y -qq nfs-common python3-pip  # a new machine updates itself first
  sudo mkdir -p /shared
  mountpoint -q /shared || sudo mount $SHARED /shared
  [ -w /shared ] || sudo chmod go+rw /shared  # a new share is root's alone
  [ -d pea_jax ] || git clone -q $REPOSITORY pea_jax
  cd pea_jax
  python3 -m pip install -q --user uv  # the image's own Python is too old
  [ -d .venv ] || python3 -m uv venv -q --seed --python 3.12 .venv
  .venv/bin/pip install -q --constraint constraints.txt -e '.[gcs,torch,transformers]' 'jax[tpu]'"
on_all_hosts "cd pea_jax && .venv/bin/$COMMAND"
