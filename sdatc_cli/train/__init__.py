"""Training: data, losses, stages, runs, export."""
