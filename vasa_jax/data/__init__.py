"""Training data: synthetic talking heads and readers of real recordings."""
