#!/bin/bash
#SBATCH --nodes=4 --ntasks-per-node=1 --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --signal=INT@120
OUT=$HOME/runs/mae
RESUME=
[ -f "$OUT/mae.npz" ] && RESUME=--resume
srun --mpi=pmi2 --cpus-per-task=$SLURM_CPUS_PER_TASK \
    python -m tinymae train mae --data "$HOME/images" --batch 512 --steps 20000 \
    --threads $SLURM_CPUS_PER_TASK --save-every 300 --out "$OUT" $RESUME "$@"
