#!/usr/bin/env bash
# A TPU slice of several hosts that you already have: the same command on every worker. They find one another.
#
#   bash experiments/launch/tpu_pod.sh
#
# Needs gcloud with a project; the run directory and the data in buckets that the slice's service account may use.
set -euo pipefail

NAME=swin                              # the slice
ZONE=us-west4-a
TYPE=v5litepod-16                      # 16 chips, 4 hosts
VERSION=v2-alpha-tpuv5-lite
BUCKET=gs://my-bucket
CONFIG=experiments/imagenet1k.py:swin_tiny

# Leave this out when the slice is there. For one that is hard to get: tpu_queued.sh.
gcloud compute tpus tpu-vm create "$NAME" --zone="$ZONE" --accelerator-type="$TYPE" --version="$VERSION"

gcloud compute tpus tpu-vm scp --recurse . "$NAME:swin_jax" --zone="$ZONE" --worker=all
gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="
  sudo apt-get -qq install -y python3.11-venv &&
  cd swin_jax && python3.11 -m venv .venv && .venv/bin/pip install -q -r requirements.txt 'jax[tpu]'"

# Run again after any interruption: it goes on from the newest checkpoint.
gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="
  cd swin_jax && .venv/bin/python -m swin_jax.train --config=$CONFIG --workdir=$BUCKET/runs/swin_tiny \
    --config.data.root=$BUCKET/tfds --config.data.workers=16"
