"""Which inputs of a traced function each of its outputs depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

Labels: TypeAlias = frozenset[str]
_NOTHING: Labels = frozenset()


def output_labels(jaxpr: ClosedJaxpr | Jaxpr, inputs: Sequence[Labels]) -> list[Labels]:
    """Propagate labels from the inputs of ``jaxpr`` to its outputs.

    An output of a primitive takes the labels of all its inputs, whether or not a gradient flows
    (a stopped gradient does not remove a dependence). Calls, scans and branches are looked
    into; loops of unknown length are taken to mix everything.

    >>> import jax
    >>> jaxpr = jax.make_jaxpr(lambda a, b: (2 * a, jax.lax.stop_gradient(a + b)))(1.0, 1.0)
    >>> [sorted(out) for out in output_labels(jaxpr, [frozenset("a"), frozenset("b")])]
    [['a'], ['a', 'b']]
    """
    if isinstance(jaxpr, ClosedJaxpr):
        jaxpr = jaxpr.jaxpr
    env: dict[Any, Labels] = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Labels:
        return _NOTHING if isinstance(atom, Literal) else env.get(atom, _NOTHING)

    for eqn in jaxpr.eqns:
        outputs = _equation_labels(eqn, [read(v) for v in eqn.invars])
        env.update(zip(eqn.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _equation_labels(eqn: Any, inputs: list[Labels]) -> list[Labels]:
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        return _scan_labels(eqn, params["jaxpr"], inputs)
    if name == "cond":
        branches = [output_labels(branch, inputs[1:]) for branch in params["branches"]]
        return [inputs[0].union(*outs) for outs in zip(*branches, strict=True)]
    inner = [p for p in params.values() if isinstance(p, (ClosedJaxpr, Jaxpr))]
    if len(inner) == 1 and _same_signature(inner[0], eqn):
        return output_labels(inner[0], inputs)
    return [_NOTHING.union(*inputs)] * len(eqn.outvars)


def _same_signature(inner: ClosedJaxpr | Jaxpr, eqn: Any) -> bool:
    jaxpr = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
    return len(jaxpr.invars) == len(eqn.invars) and len(jaxpr.outvars) == len(eqn.outvars)


def _scan_labels(eqn: Any, body: ClosedJaxpr | Jaxpr, inputs: list[Labels]) -> list[Labels]:
    num_consts, num_carry = _scan_sizes(eqn, body)
    consts = inputs[:num_consts]
    carry = inputs[num_consts : num_consts + num_carry]
    xs = inputs[num_consts + num_carry :]
    while True:  # labels only grow, so this ends
        outputs = output_labels(body, [*consts, *carry, *xs])
        new = [old | out for old, out in zip(carry, outputs[:num_carry], strict=True)]
        if new == carry:
            return [*carry, *outputs[num_carry:]]
        carry = new


def _scan_sizes(eqn: Any, body: ClosedJaxpr | Jaxpr) -> tuple[int, int]:
    """Return how many inputs of a scan are constants, and how many are carried.

    Told by the axis that the body does not see, because JAX has renamed the parameters.
    """
    body = body.jaxpr if isinstance(body, ClosedJaxpr) else body

    def num_scanned(outside: Sequence[Any], inside: Sequence[Any]) -> int:
        pairs = zip(outside, inside, strict=True)
        return sum(len(a.aval.shape) > len(b.aval.shape) for a, b in pairs)

    num_carry = len(eqn.outvars) - num_scanned(eqn.outvars, body.outvars)
    num_consts = len(eqn.invars) - num_scanned(eqn.invars, body.invars) - num_carry
    return num_consts, num_carry
