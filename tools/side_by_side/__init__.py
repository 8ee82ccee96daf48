"""XLA and PyTorch timed side by side; see tools/bench_vs_torch.

``scenes.py`` has the sizes, weights and inputs that all forms share, ``xla_forms.py`` and
``torch_forms.py`` the functions that are timed, ``worker.py`` the process that holds one form,
``compare.py`` the rounds over all of them, ``parity.py`` the layers, ``report.py`` the card.
Nothing but jax, flax, numpy and torch is imported on the way.
"""
