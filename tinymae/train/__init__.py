"""Training: the loop, the optimiser, parallel gradients, checkpoints. Knows no model."""
