"""Bytes and collectives of compiled programs, against what the programs plainly do."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from swin_jax.measure.hlo import Collective, Program

# In the manner of a TPU program: a loop whose condition alone tells its length, on-chip memory, asynchronous copies.
TPU = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%update (part: bf16[1,8,128], at: s32[], whole: bf16[6,8,128]) -> bf16[6,8,128] {
  %part = bf16[1,8,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %at = s32[]{:T(128)} parameter(1)
  %whole = bf16[6,8,128]{2,1,0:T(8,128)(2,1)} parameter(2)
  %zero = s32[]{:T(128)} constant(0)
  ROOT %updated = bf16[6,8,128]{2,1,0:T(8,128)(2,1)} dynamic-update-slice(%whole, %part, %at, %zero, %zero)
}

%body (p: (s32[], bf16[6,8,128])) -> (s32[], bf16[6,8,128]) {
  %p = (s32[]{:T(128)}, bf16[6,8,128]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %stack = bf16[6,8,128]{2,1,0:T(8,128)(2,1)} get-tuple-element(%p), index=1
  %slice-start = ((bf16[6,8,128]{2,1,0}), bf16[1,8,128]{2,1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) slice-start(%stack)
  %slice-done = bf16[1,8,128]{2,1,0:T(8,128)(2,1)S(1)} slice-done(%slice-start)
  %all-reduce = bf16[1,8,128]{2,1,0:T(8,128)(2,1)S(1)} all-reduce(%slice-done), to_apply=%add
  %fusion = bf16[6,8,128]{2,1,0:T(8,128)(2,1)} fusion(%all-reduce, %i, %stack), kind=kLoop, calls=%update
  ROOT %out = (s32[]{:T(128)}, bf16[6,8,128]{2,1,0:T(8,128)(2,1)}) tuple(%i, %fusion)
}

%condition (p: (s32[], bf16[6,8,128])) -> pred[] {
  %p = (s32[]{:T(128)}, bf16[6,8,128]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %six = s32[]{:T(128)} constant(6)
  ROOT %less = pred[]{:T(512)} compare(%i, %six), direction=LT
}

ENTRY %main (x: bf16[6,8,128]) -> bf16[6,8,128] {
  %x = bf16[6,8,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %start = s32[]{:T(128)} constant(0)
  %in = (s32[]{:T(128)}, bf16[6,8,128]{2,1,0:T(8,128)(2,1)}) tuple(%start, %x)
  %while = (s32[]{:T(128)}, bf16[6,8,128]{2,1,0:T(8,128)(2,1)}) while(%in), condition=%condition, body=%body
  ROOT %y = bf16[6,8,128]{2,1,0:T(8,128)(2,1)} get-tuple-element(%while), index=1
}
"""
SLICE = 8 * 128 * 2


def test_a_loop_counts_as_often_as_it_runs_and_slices_as_what_they_take():
    program = Program(TPU)
    counter, comparison = 4, 9  # bytes: read by the fusion; two numbers and a truth value
    # A slice is read into on-chip memory and written back in place.
    assert program.hbm_bytes() == 6 * (SLICE + SLICE + counter + comparison)
    assert program.collectives() == {"all-reduce": Collective(6, 6 * SLICE)}


def test_a_loop_of_unknown_length_is_named_and_counts_once():
    once = Program(TPU.replace("constant(6)", "constant(1)"))
    unknown = Program(TPU.replace("%six = s32[]{:T(128)} constant(6)", "%six = s32[]{:T(128)S(1)} copy(%i)"))
    assert once.open_loops() == []
    assert unknown.open_loops() == ["while"]
    assert unknown.collectives() == once.collectives()


def compiled(function, *arguments) -> Program:
    return Program(jax.jit(function).lower(*arguments).compile().as_text())


def test_an_elementwise_program_reads_and_writes_once():
    assert compiled(lambda x: jnp.sin(x) + 1, jnp.zeros(1000)).hbm_bytes() == 8000


def test_a_scan_over_a_stack_reads_the_stack_once():
    def function(stack):
        return jax.lax.scan(lambda carry, x: (carry + x, None), jnp.zeros(1000), stack)[0]

    lengths = [compiled(function, jnp.zeros((length, 1000))).hbm_bytes() for length in (10, 20, 30)]
    assert (
        lengths[2] - lengths[1] == lengths[1] - lengths[0]
    )  # linear: the whole stack would make it quadratic
    assert lengths[1] - lengths[0] >= 10 * 3 * 4000  # read carry and slice, write the sum


def test_collectives_inside_a_loop_are_counted_with_their_bytes():
    mesh = Mesh(jax.devices()[:4], ("data",))

    def function(x):
        def body(carry, _):
            total = jax.lax.with_sharding_constraint(
                jnp.sum(x * carry[None], axis=0), NamedSharding(mesh, P())
            )
            return jnp.cos(total), None

        return jax.lax.scan(body, jnp.ones(256), None, length=5)[0]

    argument = jax.ShapeDtypeStruct((8, 256), jnp.float32, sharding=NamedSharding(mesh, P("data")))
    assert compiled(function, argument).collectives() == {"all-reduce": Collective(5, 5 * 1024)}
