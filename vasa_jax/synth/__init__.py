"""People and speech that we make: training data with its ground truth."""

from vasa_jax.runtime.places import shelter

# Numba would make a folder "~" beside the user's files where there is no home to keep kernels in.
shelter("NUMBA_CACHE_DIR", "numba")
