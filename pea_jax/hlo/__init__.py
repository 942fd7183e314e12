"""Compiled programs, read from the text of their optimised HLO."""

from pea_jax.hlo.compiling import Program, allocations, finish, plan_memory
from pea_jax.hlo.memory import accessed, gathered_at_once, saved_for_backward
from pea_jax.hlo.program import Array, Instruction, instructions
from pea_jax.hlo.traffic import traffic

__all__ = [
    "Array",
    "Instruction",
    "Program",
    "accessed",
    "allocations",
    "finish",
    "gathered_at_once",
    "instructions",
    "plan_memory",
    "saved_for_backward",
    "traffic",
]
