"""Bytes of compiled programs: by paper and pencil, and held against XLA's own analysis."""

import jax
import jax.numpy as jnp
import pytest

from vasa_jax.bench.program_traffic import bytes_of_program

pytestmark = pytest.mark.usefixtures("broadcasting")

MODULE = """HloModule m, is_scheduled=true

%half (p0: f32[8,4], p1: s32[]) -> f32[2,4] {
  %p0 = f32[8,4]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %cut = f32[2,4]{1,0} dynamic-slice(%p0, %p1, %p1), dynamic_slice_sizes={2,4}
  ROOT %twice = f32[2,4]{1,0} add(%cut, %cut)
}

%body (t: (f32[2,4], s32[])) -> (f32[2,4], s32[]) {
  %t = (f32[2,4]{1,0}, s32[]) parameter(0)
  %x = f32[2,4]{1,0} get-tuple-element(%t), index=0
  %i = s32[] get-tuple-element(%t), index=1
  %y = f32[2,4]{1,0} copy(%x)
  ROOT %o = (f32[2,4]{1,0}, s32[]) tuple(%y, %i)
}

%more (t.1: (f32[2,4], s32[])) -> pred[] {
  %t.1 = (f32[2,4]{1,0}, s32[]) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (a: f32[8,4], n: s32[], b: bf16[4,6]) -> (f32[2,4], s32[]) {
  %a = f32[8,4]{1,0} parameter(0)
  %n = s32[] parameter(1)
  %b = bf16[4,6]{1,0} parameter(2)
  %f = f32[2,4]{1,0} fusion(%a, %n), kind=kLoop, calls=%half
  %d = f32[2,6]{1,0} dot(%f, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %s = (f32[2,4]{1,0}, s32[]) tuple(%f, %n)
  ROOT %w = (f32[2,4]{1,0}, s32[]) while(%s), condition=%more, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}
"""  # noqa: E501


def test_each_kind_of_instruction_moves_what_it_reads_and_writes():
    cut = 32 + 4 + 32  # of the 128 bytes two rows are taken; the index; the result
    product = 32 + 48 + 48
    loop = 3 * (32 + 32)
    assert bytes_of_program(MODULE) == cut + product + loop


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        bytes_of_program("no program")


def net(x, kernel, weights):
    x = jax.nn.relu(
        jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )
    return jax.nn.softmax(x.reshape(x.shape[0], -1) @ weights)


def writes(x, piece):
    return jax.lax.dynamic_update_slice(x * 1.5, piece, (3, 0))


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (net, [(2, 16, 16, 4), (3, 3, 4, 8), (2048, 10)]),
        (writes, [(32, 32), (2, 32)]),
        (lambda x: jax.lax.map(lambda r: jnp.tanh(r @ r), x), [(1, 16, 16)]),
        (lambda x: jax.lax.cond(x[0, 0] > 0, lambda y: y @ y, lambda y: y + 1.0, x), [(16, 16)]),
    ],
)
def test_xla_counts_the_same(function, shapes):
    arguments = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    compiled = jax.jit(function).lower(*arguments).compile()
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    assert bytes_of_program(compiled.as_text()) == pytest.approx(cost["bytes accessed"], rel=0.1)
