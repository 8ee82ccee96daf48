"""Mathematics of diffusion: schedules, processes, time grids, guidance and samplers.

Knows neither faces nor audio. Time t lies in [0, 1] and 1 is noise; a sampler sees only a denoiser
that returns x0.
"""
