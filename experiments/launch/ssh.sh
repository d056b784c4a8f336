#!/usr/bin/env bash
# Plain machines over ssh: the same code in the same place on each, and a directory that all of them share.
#
#   bash experiments/launch/ssh.sh
#
# The first machine is host 0; the others must reach it at PORT. Ctrl-C here asks all to save and leave.
set -euo pipefail

HOSTS=(node0 node1 node2 node3)
PORT=8476
CODE=/shared/swin_jax
COMMAND=(.venv/bin/python -m swin_jax.train
  --config=experiments/imagenet1k.py:swin_base --workdir=/shared/runs/swin_base
  --config.data.root=/shared/tfds --config.data.workers=32)

for id in "${!HOSTS[@]}"; do
  # -tt: a Ctrl-C or a lost connection reaches the process on the other side.
  ssh -tt "${HOSTS[$id]}" "cd $CODE && exec ${COMMAND[*]} \
    --coordinator=${HOSTS[0]}:$PORT --num_hosts=${#HOSTS[@]} --host_id=$id" 2>&1 | sed -u "s/^/${HOSTS[$id]}: /" &
done

# Succeeds only if all do.
status=0
for job in $(jobs -p); do wait "$job" || status=1; done
exit $status
