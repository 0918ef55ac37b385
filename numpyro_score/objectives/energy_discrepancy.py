"""Energy discrepancy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from numpyro_score._checks import check_int, check_positive
from numpyro_score._typing import Array
from numpyro_score.objectives._base import batched_energy, map_rows


@dataclass(frozen=True)
class EnergyDiscrepancy:
    r"""Energy discrepancy: compare the energy of an example with that of its neighbours.

    One loss per example :math:`x`, with :math:`y = x + \sigma\varepsilon` and negatives
    :math:`x_j = y + \sigma\varepsilon_j` for standard normal :math:`\varepsilon, \varepsilon_j`:

    .. math:: \log \Big( \frac{w}{M} + \frac1M \sum_{j=1}^M e^{f_\theta(x) - f_\theta(x_j)} \Big)

    Noise has both signs, there and back, and the loss is the mean over both :math:`y`: what
    is linear in the noise cancels, and with it most of the variance and of the bias of a finite M.

    With many negatives its expectation is, but for a constant, the divergence KL of the data from
    the network, less the same after both are blurred by :math:`\sigma`: never negative, and 0 at
    the density of the data. It tends to score matching for a small :math:`\sigma`, and to maximum
    likelihood for a large one.

    Use it where neither a derivative in x nor a chain is wanted: the energy alone is evaluated.
    A larger ``noise_scale`` sees the weights of modes that lie apart, and needs more negatives.
    Not with few negatives in many dimensions: all of them are then far from any data, and the loss
    is biased by their number.

    Source: T. Schröder et al., Energy discrepancies: a score-independent loss for energy-based
    models, NeurIPS (2023), equation 8.

    :param step_scale: standard deviation :math:`\sigma` of the steps there and back, in units of
        the data.
    :param num_negatives: negatives per example, a multiple of 4: half of them for each y.
    :param stabilizer: w, in units of one negative; 0 for none. It bounds the loss from below.
    :raises ValueError: a number out of its range.

    Called with ``(network, batch, key, condition=None)``: an energy (anything that
    :func:`~numpyro_score.networks.as_network` accepts), a batch of shape ``(n, *event_shape)``, a
    random key, and a condition of shape ``(n, ...)``. It returns shape ``(n,)``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.objectives import EnergyDiscrepancy
    >>> objective = EnergyDiscrepancy(step_scale=0.5, stabilizer=0.0)
    >>> objective(lambda x: 7.0 + 0.0 * x.sum(), jnp.zeros((3, 2)), jax.random.key(0)).tolist()
    [0.0, 0.0, 0.0]
    """

    step_scale: float
    num_negatives: int = 32
    stabilizer: float = 1.0

    noise_scale: ClassVar[float] = 0.0
    """What is learned is the density of the data as they are."""

    def __post_init__(self):
        check_positive(self.step_scale, "step_scale")
        check_int(self.num_negatives, "num_negatives", 4)
        if self.num_negatives % 4:
            raise ValueError(
                "num_negatives must be a multiple of 4, because noise has both signs, there "
                f"and back; got {self.num_negatives}."
            )
        if self.stabilizer != 0:
            check_positive(self.stabilizer, "a stabilizer other than 0")

    def __call__(
        self, network: Any, batch: Array, key: Array, condition: Array | None = None
    ) -> Array:
        """Return one loss per example, shape ``(n,)``."""
        energy = batched_energy(network, batch)
        n, *event = jnp.shape(batch)
        there_key, back_key = jax.random.split(key)
        dtype = jnp.result_type(batch)
        there = jax.random.normal(there_key, (n, *event), dtype)
        back = jax.random.normal(back_key, (n, self.num_negatives // 4, *event), dtype)

        def loss(x: Array, there: Array, back: Array, *condition: Array) -> Array:
            at_x = energy(x, *condition)
            back = self.step_scale * jnp.concatenate([back, -back])

            def by_way_of(y: Array) -> Array:
                ratios = at_x - jax.vmap(lambda u: energy(y + u, *condition))(back)
                if self.stabilizer:
                    ratios = jnp.append(ratios, jnp.log(jnp.asarray(self.stabilizer, dtype)))
                return jax.nn.logsumexp(ratios) - jnp.log(float(len(back)))

            step = self.step_scale * there
            return jnp.mean(jax.vmap(by_way_of)(jnp.stack([x + step, x - step])))

        return map_rows(loss, condition, batch, there, back)
