"""The project's networks once more in PyTorch, to compare and to check against.

Nothing in ``vasa_jax`` imports from here; torch comes with the extra ``[torch]``. The modules carry
the names of ours, so that ``weights.load`` is one walk over both. Inside, layouts are PyTorch's:
pictures (B, C, Y, X) in ``channels_last`` memory, volumes (B, C, Z, Y, X) in ``channels_last_3d``.

``motion.py``, ``rolling.py``    stage 2: audio encoder, transformer, guidance, DDIM, rolling step
``head.py``, ``raster.py``       the morphable head, its rasteriser, the analytic flow
``lite_face.py``                 stage 1 of the lite release
``volumetric.py``                stage 1 of the full model
``training.py``                  losses and AdamW steps of both stages
"""
