"""Products of densities: what all of them find probable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from numpyro_score._checks import check_positive, is_concrete
from numpyro_score._typing import Array, Shape
from numpyro_score.distributions._composed import ComposedDistribution, as_numbers, concretely
from numpyro_score.distributions._composed_draws import draw_composed
from numpyro_score.distributions._tails import check_tails as refuse_improper
from numpyro_score.distributions.score import ScoreDistribution
from numpyro_score.samplers import AnnealedParticles, Langevin


class Product(ComposedDistribution):
    r"""Distribution with density :math:`\prod_i p_i(x)^{w_i} / Z`: a product of experts.

    Energies are added, and scores. The product is unnormalized also where its factors are
    normalized: Z depends on all of them, so that a factor or a weight that depends on a latent site
    makes a model doubly intractable, and is refused by :func:`numpyro_score.infer.check_model`.
    :func:`estimate_log_normalizer` finds Z.

    The density of a score factor is its line integral from its own anchor; the gradient of the
    product is the sum of the scores all the same.

    A negative weight divides by a density, and a sum of weights below 1 flattens the tails: either
    may leave nothing that can be normalized. The product is then looked at far out, in many
    directions and along those in which it falls most slowly, and refused where it does not fall.
    A factor whose tails are wrong passes for what it says. Nothing can be looked at where weights
    or factors are traced.

    Source: G. E. Hinton, Training products of experts by minimizing contrastive divergence, Neural
    Computation 14 (2002), equation 1.

    :param distributions: factors, learned or of NumPyro, of one event shape and support; batch
        shapes broadcast. A product among them is taken apart.
    :param weights: :math:`w_i`, a number for each; 1 by default.
    :param log_normalizer: log Z, where you know it, of shape ``batch_shape`` or a number.
    :param sampler: :class:`numpyro_score.samplers.Langevin` to allow ``sample``, which then runs a
        short chain at every call. Not needed where there are diffusions, of one SDE, among the
        factors: :class:`numpyro_score.samplers.AnnealedParticles` says how they draw.
    :param check_tails: False to vouch yourself that the product can be normalized.
    :raises TypeError: a factor is no distribution.
    :raises ValueError: factors of other shapes or supports, weights that do not fit, or a product
        that cannot be normalized.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from numpyro_score.distributions import EnergyDistribution, Product
    >>> learned = EnergyDistribution(lambda x: 0.5 * jnp.sum(x**2), (2,))
    >>> d = Product([learned, dist.Normal(jnp.ones(2), 1.0).to_event(1)], weights=[1.0, 2.0])
    >>> d.score(jnp.zeros(2)).tolist()
    [2.0, 2.0]
    >>> d
    Product([EnergyDistribution*, Normal], batch_shape=(), event_shape=(2,), unnormalized)
    """

    _word = "factor"
    _samplers = (Langevin, AnnealedParticles)

    def __init__(
        self,
        distributions: Sequence[dist.Distribution],
        weights: Sequence[Array | float] | Array | None = None,
        *,
        log_normalizer: Array | float | None = None,
        sampler: Langevin | AnnealedParticles | None = None,
        check_tails: bool = True,
        validate_args: bool | None = None,
    ) -> None:
        factors = _as_list(distributions)
        numbers = as_weights(weights, len(factors))
        factors, numbers, log_normalizers = _take_apart(factors, numbers)
        if log_normalizer is not None:
            # It is that of the factors as they were given.
            for constant in log_normalizers:
                log_normalizer = log_normalizer + constant
        super().__init__(
            factors,
            numbers,
            log_normalizer=log_normalizer,
            sampler=sampler,
            validate_args=validate_args,
        )
        if check_tails and _tails_may_fail(numbers):
            refuse_improper(self)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Draw by the ``sampler`` given, else through the noise levels of the diffusions.

        :param key: a random key.
        :return: draws of shape ``sample_shape + batch_shape + event_shape``.
        :raises NotImplementedError: no sampler was given, and no factor is a diffusion.
        :raises FloatingPointError: a score was not finite on the way; not under ``jit``.
        """
        if isinstance(self.sampler, Langevin):
            return super().sample(key, sample_shape)
        return draw_composed(self, key, tuple(sample_shape), self.sampler or AnnealedParticles())

    def _options(self) -> dict[str, Any]:
        # What was made was looked at, or vouched for.
        return super()._options() | {"check_tails": False}

    @property
    def factors(self) -> tuple[dist.Distribution, ...]:
        """The distributions whose densities are multiplied."""
        return self._members

    def _combine(self, log_probs: list[Array]) -> Array:
        return sum(w * value for w, value in zip(self.weights, log_probs, strict=True))

    def score(self, value: Array) -> Array:
        """The weighted sum of the scores, of shape ``broadcast(leading, batch) + event_shape``.

        :param value: events of shape ``(..., *event_shape)``.
        """
        return self._combine(self._member_scores(value))


def tempered(
    distribution: dist.Distribution, temperature: Array | float, **options: Any
) -> Product:
    r"""Return the distribution of density :math:`p(x)^{1/T} / Z`.

    With T > 1 it is flatter, with T < 1 sharper; T > 1 is refused where the tails of p are so heavy
    that nothing could be normalized.

    :param distribution: p, learned or of NumPyro.
    :param temperature: T, a number above 0.
    :param options: further arguments of :class:`Product`.
    :raises ValueError: a temperature that is not above 0, or see :class:`Product`.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from numpyro_score.distributions import tempered
    >>> tempered(dist.Normal(0.0, 1.0), 4.0).score(jnp.array(2.0)).item()
    -0.5
    """
    check_positive(temperature, "temperature")
    return Product(
        [distribution], [concretely(lambda t: 1 / jnp.asarray(t, float), temperature)], **options
    )


def _as_list(distributions: Any) -> list[Any]:
    if isinstance(distributions, dist.Distribution):
        raise TypeError(
            "distributions must be a list of them, got one; for a power of one density use "
            "tempered(distribution, temperature)."
        )
    return list(distributions)


def as_weights(weights: Any, num: int) -> Array:
    """Return one finite number for each of ``num`` distributions, 1 by default."""
    if weights is None:
        return jnp.ones(num)
    array = as_numbers(weights, num, "weights")
    if is_concrete(array) and not np.all(np.asarray(array) != 0):
        raise ValueError(f"weights must not be 0, got {array}. Leave out what has no weight.")
    return array


def _take_apart(factors: list[Any], weights: Array) -> tuple[list[Any], Array, list[Array]]:
    """Put the factors of a product in its place.

    :return: factors, their weights, and the weighted log normalizers that were left behind.
    """
    flat: list[Any] = []
    numbers: list[Array] = []
    log_normalizers: list[Array] = []
    # Weights that a list is made of can be looked at one by one.
    for factor, weight in zip(factors, concretely(jnp.unstack, weights), strict=True):
        inner = type(factor) is Product
        flat += factor.factors if inner else [factor]
        numbers.append(
            concretely(jnp.multiply, weight, factor.weights if inner else np.ones(1, np.float32))
        )
        if inner and factor.log_normalizer is not None:
            log_normalizers.append(concretely(jnp.multiply, weight, factor.log_normalizer))
    if numbers:
        weights = concretely(lambda *ws: jnp.concatenate(ws), *numbers)
    return flat, weights, log_normalizers


def _tails_may_fail(weights: Array) -> bool:
    if not is_concrete(weights):
        return False
    numbers = np.asarray(weights, float)
    return bool((numbers < 0).any() or numbers.sum() < 1 - 1e-6)


def known_by_score(node: Any) -> bool:
    """Whether a distribution is a score, or a product in which one is, whose scores are added."""
    if isinstance(node, Product):
        return any(known_by_score(_unwrapped(factor)) for factor in node.factors)
    return isinstance(node, ScoreDistribution)


def _unwrapped(factor: Any) -> Any:
    while hasattr(factor, "base_dist"):
        factor = factor.base_dist
    return factor


def drawn_together(node: Any) -> bool:
    """Whether draws of a distribution come from one population, see :class:`AnnealedParticles`."""
    leaves = jax.tree.leaves(node, is_leaf=lambda leaf: isinstance(leaf, Product))
    return any(isinstance(x, Product) and not isinstance(x.sampler, Langevin) for x in leaves)
