"""Contrastive divergence: maximum likelihood with samples in place of the normalizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from numpyro_score._checks import check_float, check_int, check_positive
from numpyro_score._typing import Array
from numpyro_score.objectives._base import batched_energy, map_rows
from numpyro_score.objectives._negatives import check_magnitude, contrast, negatives


@dataclass(frozen=True)
class ContrastiveDivergence:
    r"""Contrastive divergence: lower the energy of the data, raise that of short chains.

    One loss per example :math:`x`, for a negative :math:`x^-` that ``num_steps`` Langevin steps
    lead to under the network as it is:

    .. math:: f_\theta(x) - f_\theta(x^-) + \alpha \left( f_\theta(x)^2 + f_\theta(x^-)^2 \right)

    Its gradient is that of maximum likelihood once :math:`x^-` is a draw of the network's
    density; the value of the loss tells nothing, and is near 0 when all is well. No gradient goes
    through the chain.

    With ``start=None`` chains start at the data (CD-k): few steps teach the energy around the
    data, and leave modes that no data are near. Chains that start at a distribution instead
    (short-run) look everywhere, and must be long enough to arrive, or the energy learns to make
    such short chains look like data.

    Use it where a likelihood is wanted and derivatives of second order are too expensive. Each
    step costs ``num_steps`` gradients. Not for modes that lie apart: no short chain learns their
    weights; see :class:`PersistentContrastiveDivergence`.

    Sources: G. E. Hinton, Training products of experts by minimizing contrastive divergence,
    Neural Computation 14 (2002); Y. Du & I. Mordatch, Implicit generation and modeling with
    energy-based models, NeurIPS (2019), for the term in α; E. Nijkamp et al., Learning
    non-convergent non-persistent short-run MCMC toward energy-based model, NeurIPS (2019).

    :param step_size: ε of the Langevin step, in squared units of the data.
    :param num_steps: steps of each chain, one gradient each.
    :param metropolis: whether steps are tested (MALA), so that the step size leaves no bias.
    :param start: a NumPyro distribution of events, where chains start; None for the data.
    :param magnitude: α, in units of one over an energy; 0 for none. It keeps energies of a free
        constant near 0.
    :raises ValueError: a number out of its range.

    Called with ``(network, batch, key, condition=None)``: an energy (anything that
    :func:`~numpyro_score.networks.as_network` accepts), a batch of shape ``(n, *event_shape)``, a
    random key, and a condition of shape ``(n, ...)``. It returns shape ``(n,)``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.objectives import ContrastiveDivergence
    >>> objective = ContrastiveDivergence(step_size=0.1, num_steps=5)
    >>> objective(lambda x: 0.5 * jnp.sum(x**2), jnp.ones((3, 2)), jax.random.key(0)).shape
    (3,)
    """

    step_size: float
    num_steps: int = 10
    metropolis: bool = True
    start: dist.Distribution | None = None
    magnitude: float = 0.0

    noise_scale: ClassVar[float] = 0.0
    """What is learned is the density of the data as they are."""

    has_minimum: ClassVar[bool] = False
    """Its value does not tell a good network from a bad one."""

    def __post_init__(self):
        check_positive(self.step_size, "step_size")
        check_int(self.num_steps, "num_steps", 1)
        check_magnitude(self.magnitude)
        if self.start is not None and not isinstance(self.start, dist.Distribution):
            raise TypeError(
                "start must be a NumPyro distribution, or None for the data; got "
                f"{type(self.start).__name__}."
            )

    def __call__(
        self, network: Any, batch: Array, key: Array, condition: Array | None = None
    ) -> Array:
        """Return one loss per example, shape ``(n,)``."""
        energy = batched_energy(network, batch)
        start_key, chain_key = jax.random.split(key)
        start = batch if self.start is None else self._draw(start_key, batch)
        found = negatives(self, network, start, chain_key, condition)
        low, high = (map_rows(energy, condition, rows) for rows in (batch, found))
        return contrast(low, high, self.magnitude)

    def _draw(self, key: Array, batch: Array) -> Array:
        assert self.start is not None
        draws = self.start.sample(key, (len(batch),))
        if draws.shape != batch.shape:
            raise ValueError(
                f"start must draw events of the shape {batch.shape[1:]} of the data, got "
                f"{draws.shape[1:]}."
            )
        check_float(draws, "a draw of start")
        return jnp.asarray(draws, batch.dtype)
