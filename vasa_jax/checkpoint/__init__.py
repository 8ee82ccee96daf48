"""Weights on disk: Orbax checkpoints of runs, safetensors releases."""
