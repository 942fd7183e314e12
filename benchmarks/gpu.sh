#!/usr/bin/env bash
# Stable Diffusion XL's step beside PyTorch's on one GPU, in one command of at most 8 minutes:
#
#     benchmarks/gpu.sh WHEELS --out build/step-gpu.json [any flag of benchmarks/step.py]
#
# WHEELS is a folder with what the machine's python3 lacks beside jax[cuda], flax, optax, orbax-checkpoint, torch and
# transformers: array_record, cloudpickle, diffusers, grain, importlib_metadata, ml_collections, pillow, portpicker,
# qwix, requests (with certifi, charset_normalizer and urllib3), simplejpeg, tensorboardX.
# Where there is a network, this fills it (for Python 3.12; name other platforms if pip finds none):
#
#     python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
#       --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 -d WHEELS array_record diffusers grain ...
#
# It is installed into a folder of its own; nothing else on the machine changes. With an empty folder python3 is used as
# it is. What there was no time for is said at the end; name it alone with --measures and run again. That will be so of
# the mix: the first run has the most frequent buckets, with 640x640 four fifths of the pictures, and all of them take
# `--measures mix` and 8 minutes of their own.
#
# Of the tree it reads benchmarks, configs and pea_jax, 1 MB: weights are random, made on the GPU. assets, 150 MB, may
# stay behind where the way to the machine is narrow, in either of two ways:
#
#     git archive HEAD benchmarks configs pea_jax | ssh MACHINE 'mkdir -p pea_jax && tar -x -C pea_jax'
#     git sparse-checkout set --no-cone '/*' '!/assets/'    # and `git sparse-checkout disable` afterwards
set -euo pipefail

wheels=$1
shift
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if compgen -G "$wheels/*.whl" >/dev/null; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl
fi
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TF_CPP_MIN_LOG_LEVEL=2

# 10 seconds after the budget an unfinished measure is ended; its rows are written already. PyTorch takes more than a
# minute to compile for a bucket, so that three processes of it share the mix; more would not have the memory.
timeout --signal=INT 475 python3 -m benchmarks.step \
  --config configs/ru.py --networks sdxl --bucket 640x640 --batch_size 8 --steps 8 \
  --groups pea_jax,tuned,published,pea_jax-uncached --mixed tuned,pea_jax --at_once 3 \
  --searched published pea_jax-remat --trials 4 \
  --measures speed mix start largest --mix_until 200 --budget 460 "$@"
