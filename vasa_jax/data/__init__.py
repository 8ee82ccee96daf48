"""Training data: synthetic talking heads and readers of real recordings."""

from vasa_jax.core.places import shelter

# Numba would make a folder "~" beside the user's files where there is no home to keep kernels in.
shelter("NUMBA_CACHE_DIR", "numba")
