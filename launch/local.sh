#!/usr/bin/env bash
# Several processes on this machine as one run: each with its share of the CPU cores, or one for every GPU.
#
#     launch/local.sh 2 -m pea_jax.train --config configs/ru.py:emoji --workdir runs/ru-emoji
#
# The first argument is the number of processes, the rest what Python is given. Ends when all have ended, with their exit
# code; when one fails the others are ended too, and the same command goes on from the last checkpoint.
set -euo pipefail

PYTHON=${PYTHON:-.venv/bin/python}
PORT=${PORT:-12321}                        # any that is free
DEVICES=${DEVICES:-}                       # CPU devices of each process; empty: an equal share of the cores

processes=$1
shift
share=$(( $(nproc) / processes ))
export JAX_NUM_CPU_DEVICES=${DEVICES:-$(( share > 0 ? share : 1 ))}
export JAX_COORDINATOR_ADDRESS="localhost:$PORT" JAX_NUM_PROCESSES=$processes

started=() told=
trap 'kill "${started[@]}" 2>/dev/null || true' EXIT
trap 'told=yes; kill -TERM "${started[@]}" 2>/dev/null || true' INT TERM
for (( id = 0; id < processes; id++ )); do
  if command -v nvidia-smi >/dev/null; then export CUDA_VISIBLE_DEVICES=$id; fi
  JAX_PROCESS_ID=$id "$PYTHON" "$@" &
  started+=($!)
done
for (( ended = 0; ended < processes; ended++ )); do
  code=0
  wait -n || code=$?
  if [[ -n $told ]]; then  # each saves, and ends
    code=0
    for process in "${started[@]}"; do wait "$process" || code=$?; done
    exit "$code"
  fi
  (( code == 0 )) || exit "$code"
done
