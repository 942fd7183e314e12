"""Programs of a few lines, whose traffic can be added up by hand."""

from pea_jax import hlo

# As the compiler for TPUs writes it: a parameter gathered in every round of a loop, a gradient summed, a fusion.
PROGRAM = """
HloModule jit_step, is_scheduled=true, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  ROOT %sum = f32[] add(%a, %b)
}

%fused (p: bf16[16,64]) -> f32[16,64] {
  %p = bf16[16,64]{1,0} parameter(0)
  ROOT %wide = f32[16,64]{1,0} convert(%p)
}

%body (t: (s32[], bf16[4,64])) -> (s32[], bf16[4,64]) {
  %t = (s32[], bf16[4,64]{1,0:T(8,128)(2,1)}) parameter(0)
  %shard = bf16[4,64]{1,0:T(8,128)(2,1)} get-tuple-element(%t), index=1
  %whole = bf16[16,64]{1,0:T(8,128)(2,1)S(1)} all-gather(%shard), replica_groups=[2,4]<=[8], dimensions={0}
  %f32 = f32[16,64]{1,0:T(8,128)} fusion(%whole), kind=kLoop, calls=%fused
  ROOT %out = (s32[], bf16[4,64]{1,0:T(8,128)(2,1)}) tuple(%i, %shard)
}

ENTRY %main (p: bf16[4,64], g: f32[100]) -> f32[100] {
  %p.1 = bf16[4,64]{1,0:T(8,128)(2,1)} parameter(0)
  %g = f32[100]{0:T(128)} parameter(1)
  %loop = (s32[], bf16[4,64]{1,0}) while(%start), body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %started = (bf16[2,8]{1,0}, bf16[8,8]{1,0}) all-gather-start(%q), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  %done = bf16[8,8]{1,0} all-gather-done(%started)
  ROOT %summed = f32[100]{0:T(128)} all-reduce(%g), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
}
"""


def test_traffic():
    received = hlo.traffic(PROGRAM)
    assert received["gathered"] == 3 * (16 * 64 * 2) * 3 / 4 + (8 * 8 * 2) * 3 / 4
    assert received["reduced"] == 2 * (100 * 4) * 7 / 8


def test_a_fusion_is_one_operation_and_a_loop_many():
    seen = {one.name: one for one in hlo.instructions(PROGRAM)}
    assert "wide" not in seen and "wide" in {one.name for one in hlo.instructions(PROGRAM, fused=True)}
    assert seen["whole"].times == 3 and seen["summed"].times == 1
    assert seen["f32"].operands == ["whole"]
    assert seen["whole"].results[0].minor_to_major == "1,0" and seen["whole"].results[0].dims == (16, 64)


def test_sizes_of_dtypes():
    sizes = {dtype: hlo.Array(dtype, (10,), "").size for dtype in ("pred", "bf16", "f8e4m3fn", "s4", "f32")}
    assert sizes == {"pred": 10, "bf16": 20, "f8e4m3fn": 10, "s4": 5, "f32": 40}


def test_a_collective_that_is_spread_over_fusions_counts_once():
    """As TPUs write it: 4 chips along the second axis of a mesh of 2 x 4, a start, a step and a done of one channel."""
    gather = "replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}"
    parts = "\n".join(
        f"""%part.{i} (p: bf16[4,64]) -> bf16[16,64] {{
  %p = bf16[4,64]{{1,0}} parameter(0)
  ROOT %whole = bf16[16,64]{{1,0}} all-gather(%p), channel_id=7, {gather}
}}
"""
        for i in range(3)
    )
    program = f"""{parts}
ENTRY %main (p: bf16[4,64]) -> bf16[16,64] {{
  %p = bf16[4,64]{{1,0}} parameter(0)
  %start = bf16[16,64]{{1,0}} fusion(%p), kind=kCustom, calls=%part.0
  %step = bf16[16,64]{{1,0}} fusion(%p, %start), kind=kCustom, calls=%part.1
  %done = bf16[16,64]{{1,0}} fusion(%p, %step), kind=kCustom, calls=%part.2
  %other = bf16[16,64]{{1,0}} all-gather(%p), channel_id=8, {gather}
  ROOT %sum = bf16[16,64]{{1,0}} add(%done, %other)
}}
"""
    assert hlo.traffic(program)["gathered"] == 2 * (16 * 64 * 2) * 3 / 4
    assert hlo.gathered_at_once(program) == 2 * (16 * 64 * 2)
