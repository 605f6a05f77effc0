#!/bin/sh
# Stage I as published: sh train_autoencoder.sh <GPU> [further arguments of main_autoencoder.py]
set -eu
if [ $# -lt 1 ]; then
    echo "usage: sh train_autoencoder.sh <GPU> [further arguments of main_autoencoder.py]" >&2
    exit 2
fi
export CUDA_VISIBLE_DEVICES="$1"
shift
cd "$(dirname "$0")"
exec "${PYTHON:-python}" main_autoencoder.py --config cfgs/autoencoder/act_dvae_with_pretrained_transformer.yaml "$@"
