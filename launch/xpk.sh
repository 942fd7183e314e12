#!/usr/bin/env bash
# GKE by XPK, which makes the JobSet by itself, in a cluster that `xpk cluster create` has made. Edit, then: launch/xpk.sh
set -euo pipefail

CLUSTER=my-cluster
PROJECT=my-project
ZONE=us-west4-b
ACCELERATOR=(--tpu-type=v5litepod-16)      # or (--device-type=h100-mega-80gb-8 --num-nodes=2)
SLICES=1
IMAGE=us-docker.pkg.dev/my-project/images/pea_jax  # python, pea_jax and JAX for the accelerator
WORKDIR=/shared/runs/ru                    # on a share that all hosts mount (`xpk storage attach`)
COMMAND="python -m pea_jax.train --distributed --config configs/ru.py --workdir $WORKDIR --config.mesh.fsdp=4"
COMMAND+=" --terminated_code=75"           # so that a pod which was told to go does not count as done

xpk workload create --workload="pea-jax-$(date +%m%d-%H%M)" --cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" \
  "${ACCELERATOR[@]}" --num-slices="$SLICES" --docker-image="$IMAGE" --max-restarts=20 \
  --restart-on-exit-codes=1,75 --command="$COMMAND"  # 1: another host was lost; by itself XPK knows 42 and 127 to 255
