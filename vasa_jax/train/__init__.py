"""Training: state, optimiser, the one loop, and a task per stage."""
