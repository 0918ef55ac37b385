"""States of the kernels that test their proposals; fields named as ArviZ and NumPyro name them."""

from __future__ import annotations

from typing import NamedTuple

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._score_sites import Marks
from numpyro_score.infer._warmup import AdaptState


class MetropolisState(NamedTuple):
    """State of a kernel with a Metropolis test and no memory but its position.

    - **i** - steps so far, warm-up included.
    - **z** - unconstrained values at the latent sites.
    - **potential_energy** - potential energy at ``z``; with ``path="local"``, that of the sites
      that have a density.
    - **score** - gradient of the log density in whitened coordinates, Lᵀ ∇ log p(z), flat.
    - **accept_prob** - acceptance probability of the last proposal.
    - **mean_accept_prob** - its mean since the start of warm-up, or of sampling.
    - **diverging** - whether the last proposal was hopeless: for a Langevin kernel, its acceptance
      probability is 0 in floating point (below e⁻¹⁰³ in float32), because its energy is too high or
      not finite; for a Hamiltonian one, the energy error was above 1,000.
    - **adapt_state** - :class:`AdaptState`: ``step_size``, ``inverse_mass_matrix``.
    - **rng_key** - key of the next step.
    - **site_scores** - value and score at each score site, where ``path="local"`` starts;
      empty otherwise.
    """

    i: Array
    z: PyTree
    potential_energy: Array
    score: Array
    accept_prob: Array
    mean_accept_prob: Array
    diverging: Array
    adapt_state: AdaptState
    rng_key: Array
    site_scores: Marks = {}  # noqa: RUF012


class TrajectoryState(NamedTuple):
    """State of a Hamiltonian kernel: that of :class:`MetropolisState`, and of its trajectory.

    - **energy** - Hamiltonian at the end of the last trajectory.
    - **num_steps** - gradients that the last trajectory took.
    """

    i: Array
    z: PyTree
    potential_energy: Array
    score: Array
    accept_prob: Array
    mean_accept_prob: Array
    diverging: Array
    energy: Array
    num_steps: Array
    adapt_state: AdaptState
    rng_key: Array
    site_scores: Marks = {}  # noqa: RUF012


class MomentumState(NamedTuple):
    """State of a kernel whose momentum persists: that of :class:`MetropolisState`, and two more.

    - **momentum** - in whitened coordinates, standard normal at stationarity, ``(d,)``.
    - **slice** - level of the non-reversible Metropolis test, in (-1, 1).
    """

    i: Array
    z: PyTree
    potential_energy: Array
    score: Array
    accept_prob: Array
    mean_accept_prob: Array
    diverging: Array
    momentum: Array
    slice: Array
    adapt_state: AdaptState
    rng_key: Array
    site_scores: Marks = {}  # noqa: RUF012
