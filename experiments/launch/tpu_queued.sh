#!/usr/bin/env bash
# A queued request for a TPU slice, spot if you like: it starts training whenever it gets the machines, and the same
# request again goes on where the last one was preempted.
#
#   bash experiments/launch/tpu_queued.sh
#   gcloud compute tpus queued-resources describe swin-request --zone=us-west4-a       # waiting, active, suspended
#   gcloud compute tpus queued-resources delete swin-request --zone=us-west4-a --force # when done
set -euo pipefail

NAME=swin
ZONE=us-west4-a
TYPE=v5litepod-16
VERSION=v2-alpha-tpuv5-lite
BUCKET=gs://my-bucket
CONFIG=experiments/imagenet1k.py:swin_tiny
CODE=$BUCKET/code/swin_jax.tar.gz

# Every worker runs this when it boots, as root; the bucket brings the code.
STARTUP=$(mktemp)
cat > "$STARTUP" <<SCRIPT
#!/usr/bin/env bash
mkdir -p /opt/swin_jax && cd /opt/swin_jax
gcloud storage cp "$CODE" - | tar xz
apt-get -qq install -y python3.11-venv
python3.11 -m venv .venv && .venv/bin/pip install -q -r requirements.txt 'jax[tpu]'
.venv/bin/python -m swin_jax.train --config=$CONFIG --workdir=$BUCKET/runs/swin_tiny \
  --config.data.root=$BUCKET/tfds --config.data.workers=16
SCRIPT

git archive HEAD | gzip | gcloud storage cp - "$CODE"
gcloud compute tpus queued-resources create "$NAME-request" --node-id="$NAME" --zone="$ZONE" \
  --accelerator-type="$TYPE" --runtime-version="$VERSION" --spot --metadata-from-file=startup-script="$STARTUP"
