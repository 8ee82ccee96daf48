"""A volumetric face model so small that tests compile it in seconds."""

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.tree import flatten
from vasa_jax.face.volume.autoencoder import VolumetricConfig

# Everything once, nothing twice: compiled in seconds.
TINY = VolumetricConfig(
    size=128, volume=(4, 16, 16, 4), dynamics=6, encoder_widths=(4, 8, 8, 8), encoder_blocks=1,
    identity_code=8, identity_size=128, identity_blocks=(1, 1, 1, 1), trunk_width=4,
    dynamics_blocks=(1, 1, 1, 1), warp_widths=(8, 4), volume_widths=(4, 8, 8), decoder_width=8,
    decoder_blocks=1, decoder_up_widths=(8, 4, 4),
)  # fmt: skip


def filled(shapes):
    """Random parameters of the right scale, without compiling an initialisation."""
    rng = np.random.default_rng(0)

    def leaf(name, x):
        last = name.rsplit("/", 1)[-1]
        if last in ("scale", "bias"):
            return jnp.full(x.shape, float(last == "scale"))
        return jnp.asarray(rng.normal(size=x.shape) / np.sqrt(np.prod(x.shape[:-1])), jnp.float32)

    names = flatten(shapes)
    values = [leaf(name, x) for name, x in names.items()]
    return jax.tree.unflatten(jax.tree.structure(shapes), values)
