"""Stage 2: the motion vector's statistics, the conditions, and the denoising transformer."""
