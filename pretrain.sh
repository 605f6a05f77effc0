#!/bin/sh
# Stage II as published: sh pretrain.sh <GPU> [further arguments of main.py]
set -eu
if [ $# -lt 1 ]; then
    echo "usage: sh pretrain.sh <GPU> [further arguments of main.py]" >&2
    exit 2
fi
export CUDA_VISIBLE_DEVICES="$1"
shift
cd "$(dirname "$0")"
exec "${PYTHON:-python}" main.py --config cfgs/pretrain/pretrain_act_distill.yaml "$@"
