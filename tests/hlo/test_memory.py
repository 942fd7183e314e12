"""Programs of a few lines, whose memory can be added up by hand."""

from pea_jax import hlo


def test_what_the_backward_pass_reads_of_the_forward_pass():
    """`a` through a bitcast, `c` by an operation without a name; the parameter and `b` are not kept for it."""
    names = ('metadata={op_name="jit(step)/jvp()/dot"}', 'metadata={op_name="jit(step)/transpose(jvp())/dot"}')
    program = f"""
ENTRY %main (p: f32[8]) -> f32[8] {{
  %p = f32[8]{{0}} parameter(0)
  %a = bf16[16]{{0}} fusion(%p), kind=kLoop, calls=%f, {names[0]}
  %b = bf16[32]{{0}} fusion(%a), kind=kLoop, calls=%f, {names[0]}
  %c = bf16[64]{{0}} fusion(%b), kind=kLoop, calls=%f, {names[0]}
  %same = bf16[4,4]{{1,0}} bitcast(%a)
  %d = f32[8]{{0}} fusion(%same, %p), kind=kLoop, calls=%f, {names[1]}
  %e = f32[8]{{0}} copy(%d)
  ROOT %g = f32[8]{{0}} fusion(%e, %c), kind=kLoop, calls=%f, {names[1]}
}}
"""
    assert hlo.saved_for_backward(program) == 2 * 16 + 2 * 64


def gathering(*lines: str) -> str:
    return "\n".join(
        ["ENTRY %main (p: bf16[4,64]) -> bf16[16,64] {", "  %p = bf16[4,64]{1,0} parameter(0)", *lines, "}", ""]
    )


WHOLE = 16 * 64 * 2


def test_what_is_gathered_counts_until_its_last_use():
    """Two in a row, the first still in use when the second comes, or not."""
    first = "  %a = bf16[16,64]{1,0} all-gather(%p), replica_groups={{0,1,2,3}}, dimensions={0}"
    second = first.replace("%a", "%b")
    use_first = "  %x = bf16[8]{0} fusion(%a, %p), kind=kLoop, calls=%f"
    use_both = "  ROOT %y = bf16[8]{0} fusion(%NAME, %b), kind=kLoop, calls=%f"
    assert hlo.gathered_at_once(gathering(first, second, use_first, use_both.replace("NAME", "x"))) == 2 * WHOLE
    assert hlo.gathered_at_once(gathering(first, use_first, second, use_both.replace("NAME", "x"))) == WHOLE
    assert hlo.gathered_at_once(gathering(first, use_first, second, use_both.replace("NAME", "a"))) == 2 * WHOLE


def test_what_is_gathered_counts_from_its_start_and_its_copies_too():
    lines = (
        "  %s = (bf16[4,64]{1,0}, bf16[16,64]{1,0}) all-gather-start(%p), replica_groups={{0,1,2,3}}, dimensions={0}",
        "  %d = bf16[16,64]{1,0} all-gather-done(%s)",
        "  %view = bf16[64,16]{0,1} bitcast(%d)",
        "  %c = bf16[16,64]{0,1} copy(%view)",
        "  ROOT %y = bf16[8]{0} fusion(%c, %p), kind=kLoop, calls=%f",
    )
    assert hlo.gathered_at_once(gathering(*lines)) == 2 * WHOLE
    assert hlo.gathered_at_once(gathering(*lines[:2])) == WHOLE


def test_dumps_write_elements_of_tuples_in_a_shorter_way():
    """As if they were taken where the tuple is made."""
    long = (
        "  %s = (bf16[4,64]{1,0:T(8,128)}, bf16[16,64]{1,0:T(8,128)}) all-gather-start(%p), replica_groups={{0,1,2,3}}",
        "  %own = bf16[4,64]{1,0} get-tuple-element(%s), index=0",
        "  %other = bf16[4,64]{1,0} copy(%p)",
        "  %late = bf16[16,64]{1,0} all-gather(%other), replica_groups={{0,1,2,3}}, dimensions={0}",
        "  ROOT %y = bf16[8]{0} fusion(%own, %late), kind=kLoop, calls=%f",
    )
    short = (long[0], *long[2:4], "  ROOT %y = bf16[8]{0} fusion(%s#0, %late), kind=kLoop, calls=%f")
    assert hlo.gathered_at_once(gathering(*long)) == hlo.gathered_at_once(gathering(*short)) == WHOLE
    second = short[-1].replace("#0", "#1")
    assert hlo.gathered_at_once(gathering(*short[:-1], second)) == 2 * WHOLE


def test_what_another_core_gathers_counts_until_its_last_use():
    core = """
%gathered (q: bf16[4,64]) -> bf16[16,64] {
  %q = bf16[4,64]{1,0} parameter(0)
  ROOT %g = bf16[16,64]{1,0} all-gather(%q), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
}
"""
    lines = (
        "  %s = ((), (), s32[]{:S(2)}) call-start(), to_apply=%gathered",
        "  %u = ((bf16[4,64]{1,0}), bf16[16,64]{1,0}) call-update(%s, %p)",
        "  %d = bf16[16,64]{1,0} call-done(%u)",
        "  %late = bf16[16,64]{1,0} all-gather(%p), replica_groups={{0,1,2,3}}, dimensions={0}",
        "  ROOT %y = bf16[8]{0} fusion(%d, %late), kind=kLoop, calls=%f",
    )
    assert hlo.gathered_at_once(core + gathering(*lines)) == 2 * WHOLE


def test_traffic_with_memory():
    """What lies in the fast memory, `S(1)`, costs nothing; a copy into it is read once."""
    program = gathering(
        "  %s = (bf16[4,64]{1,0:S(1)}, bf16[4,64]{1,0}, u32[]{:S(2)}) copy-start(%p)",
        "  %d = bf16[4,64]{1,0:S(1)} copy-done(%s)",
        "  %x = bf16[8,64]{1,0} fusion(%d, %p), kind=kLoop, calls=%f",
        "  %t = (bf16[8,64]{1,0}, bf16[4,64]{1,0}) tuple(%x, %p)",
        "  ROOT %y = bf16[64]{0:S(1)} fusion(%x), kind=kLoop, calls=%f",
    )
    part = 4 * 64 * 2
    assert hlo.accessed(program) == part + (2 * part + part) + 2 * part
