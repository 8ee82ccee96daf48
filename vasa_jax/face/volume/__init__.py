"""The paper's face: a canonical appearance volume, its encoders and decoder."""
