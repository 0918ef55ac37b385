"""One table of what data say of a distribution, before it enters a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from numpyro_score._typing import Array
from numpyro_score.diagnostics._data_findings import (
    curl_finding,
    draws_finding,
    fisher_finding,
    stein_findings,
    tail_finding,
)
from numpyro_score.diagnostics._density_findings import (
    difference_finding,
    finite_findings,
    jacobian_finding,
    normalizer_finding,
)
from numpyro_score.diagnostics._subject import Subject
from numpyro_score.diagnostics.findings import Finding, Findings, cannot_tell


def check(
    distribution: Any, data: Array, *, key: Array | None = None, verbose: bool = True
) -> Findings:
    r"""Print a table of what held-out data say of a distribution, each line with ✓, ✗ or ?.

    To be looked at before the distribution enters a model, with rows that it was not learned from.
    All is in coordinates without constraint, with their Jacobian.

    - Whether log density and score are finite at the data; whether differences of the one are
      integrals of the other (within 5%; 15% for a line integral, 30% for the flow of a diffusion);
      whether transforms tell their Jacobians right; whether a density that says it is normalized
      integrates to 1 (within 0.1, in up to 8 dimensions).
    - :func:`tail_check` (no bad ray), and :func:`curl` of scores (at most 0.1).
    - The Fisher divergence, less that of a Gaussian which was fitted to half of the data and is
      compared on the other half, in units of ½ E‖s‖² of that Gaussian (at most 0).
    - The mean of :math:`-(x - \bar x) \cdot s(x) / d`, which is 1 for the right density (within
      0.1), and a :func:`stein_test` of at most 500 rows (p ≥ 0.001).
    - Draws of its sampler against data, by the permutation test of
      :func:`maximum_mean_discrepancy` (p ≥ 0.001). Where there is no sampler, half of the data is
      moved by MALA, and by jumps to near the other half that are tested as well: draws of the
      density stay draws of it. In many dimensions such jumps are refused, and the weights of modes
      that lie apart are not seen.

    A number fails where it is outside by more than four standard errors. A ✗ is by chance in fewer
    than one of 100 tables. Tests see at most 500 rows, so that a network which is off by less than
    so many rows tell passes: ✓ is no proof.

    :param distribution: a distribution of this package or of NumPyro, of one density, or with a
        condition for each row of data.
    :param data: held-out rows that are independent of each other, shape ``(n, *event_shape)``; from
        200 on all can be told. They may be sorted: halves and parts are taken of shuffled rows.
    :param key: a random key, for all that is random here.
    :param verbose: whether to print the table.
    :return: its rows, with name, value, error, threshold, whether it passed, and advice.
    :raises TypeError: no distribution, or data that are no floating-point numbers.
    :raises ValueError: shapes that do not fit, fewer than 20 rows, rows that are all one, or
        outside of the support.
    :raises FloatingPointError: a row is not finite.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.diagnostics import check
    >>> from numpyro_score.distributions import EnergyDistribution
    >>> data = jax.random.normal(jax.random.key(0), (400, 2))
    >>> check(EnergyDistribution(lambda x: 0.5 * jnp.sum(x**2), (2,)), data, verbose=False).passed
    True
    >>> table = check(EnergyDistribution(lambda x: jnp.sum(x**2), (2,)), data, verbose=False)
    >>> [row.name for row in table.failed][-1]
    'data against data moved by MALA (p-value)'
    """
    key = jax.random.key(0) if key is None else key
    subject = Subject(distribution, data)
    keys = jax.random.split(key, 7)
    rows = finite_findings(subject)
    steps: list[tuple[str, Callable[[], Finding | list[Finding]]]] = [
        ("log density against score", lambda: difference_finding(keys[0], subject)),
        ("Jacobian of the transforms", lambda: jacobian_finding(subject)),
        ("integral of the density", lambda: normalizer_finding(keys[1], subject)),
        ("tails", lambda: tail_finding(keys[2], subject)),
        ("curl of the score", lambda: curl_finding(keys[3], subject)),
        ("Fisher divergence less a Gaussian's", lambda: fisher_finding(keys[4], subject)),
        ("scale and Stein test", lambda: stein_findings(keys[5], subject)),
        ("data against draws", lambda: draws_finding(keys[6], subject)),
    ]
    finite = all(row.passed for row in rows)
    for name, step in steps:
        if not finite:
            break
        try:
            found = step()
        except (ValueError, FloatingPointError) as error:
            found = cannot_tell(name, str(error))
        rows += found if isinstance(found, list) else [found]
    findings = Findings(f"check of {_name(distribution)} on {subject.num_rows:,} rows", tuple(rows))
    if verbose:
        findings.show()
    return findings


def _name(distribution: Any) -> str:
    name = repr(distribution)
    return type(distribution).__name__ if " at 0x" in name else name
