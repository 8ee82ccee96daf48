"""The README's recipe runs, and its table lists what there is."""

import re
from pathlib import Path

import vasa_jax.diffusion
from vasa_jax.diffusion.samplers import SAMPLERS

README = (Path(vasa_jax.diffusion.__file__).parent / "README.md").read_text(encoding="utf-8")


def test_the_recipe_runs_and_is_of_the_order_it_declares():
    (recipe,) = re.findall(r"```python\n(.*?)```", README, re.S)
    body = recipe[recipe.index("@dataclasses") : recipe.index("slope, errors")]
    assert len([line for line in body.splitlines() if line.strip()]) <= 20
    exec(compile(recipe, "README.md", "exec"), {"__name__": "recipe"})


def test_the_table_lists_every_sampler_with_its_declared_and_measured_order():
    rows = re.findall(r"^\| `(\w+)` \| (\d) \| (\w+) \| (.*) \|$", README, re.M)
    assert [name for name, *_ in rows] == list(SAMPLERS)
    for name, calls, declared, measured in rows:
        step = SAMPLERS[name]
        assert int(calls) == step.evaluations
        assert declared == (str(step.order) if step.order else "stochastic")
        if step.order:
            slopes = [float(v) for v in measured.split(" | ")[:3]]
            assert all(abs(slope - step.order) < 0.15 for slope in slopes), name
