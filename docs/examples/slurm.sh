#!/bin/bash
# Stage II on two machines of eight GPUs, put back into the queue when its time is up.
#SBATCH --job-name=act
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@180    # three minutes before the end this script is told
#SBATCH --requeue
#SBATCH --open-mode=append

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" torchrun --nnodes="$SLURM_NNODES" --nproc_per_node=8 --max_restarts=3 --rdzv_id="$SLURM_JOB_ID" \
    --rdzv_backend=c10d --rdzv_endpoint="$first:29500" \
    main.py --config cfgs/pretrain/pretrain_act_distill.yaml --exp_name act --resume auto --save_every 500 &
run=$!

# srun hands SIGTERM on to torchrun, and torchrun to its processes, which end their step and save
trap 'kill -TERM "$run"; wait "$run"; scontrol requeue "$SLURM_JOB_ID"; exit' USR1
wait "$run"
