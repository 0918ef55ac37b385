"""Fit a network to data."""

from __future__ import annotations

import os
import warnings
from typing import Any

import equinox as eqx
import jax
import optax

from numpyro_score._array_file import digest_arrays, key_digest
from numpyro_score._checks import is_array
from numpyro_score._typing import Array, PyTree
from numpyro_score.networks import as_network
from numpyro_score.training._arguments import (
    as_key,
    check_objective,
    check_settings,
    pick_chunk_size,
)
from numpyro_score.training._checkpoint import Checkpoint, words
from numpyro_score.training._data import Rows, check_rows, split_rows
from numpyro_score.training._loop import Problem, split_network
from numpyro_score.training._optimizer import choose_optimizer
from numpyro_score.training._run import Run
from numpyro_score.training.result import FitResult, FitWarning


def fit(
    rng_key: Array,
    network: Any,
    data: Array,
    objective: Any,
    *,
    num_steps: int,
    batch_size: int = 256,
    condition: Array | None = None,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float | None = None,
    ema_decay: float = 0.999,
    validation_fraction: float = 0.1,
    patience: int | None = None,
    progress_bar: bool = True,
    chunk_size: int | None = None,
    fit_base: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
) -> FitResult:
    """Fit an energy or a score to data.

    Each step draws a minibatch with replacement and follows the gradient of its mean loss. The
    returned network is an exponential moving average (EMA) of the steps; with validation rows,
    the one that did best on them, unless the value of the objective tells nothing (contrastive
    divergence). The arguments are left as they are.

    :param rng_key: random key, typed or legacy; it fixes the split, minibatches and noise.
    :param network: anything that :func:`~numpyro_score.networks.as_network` accepts.
    :param data: finite floating-point array of shape ``(n, *event_shape)``.
    :param objective: ``objective(network, batch, key[, condition])`` that returns one loss per
        example, such as :class:`~numpyro_score.objectives.DenoisingScoreMatching`. One that has
        a memory, such as :class:`~numpyro_score.objectives.PersistentContrastiveDivergence`, has
        ``init_memory(rng_key, data, condition)`` and ``update(network, batch, key, memory,
        condition)``, which returns the losses and the memory after the step.
    :param num_steps: number of steps.
    :param batch_size: rows per step, at most the number of training rows.
    :param condition: array of shape ``(n, ...)`` for a conditional network.
    :param optimizer: an Optax optimizer; by default Adam behind a clip of the gradient's global
        norm at 10.
    :param learning_rate: initial rate of the default optimizer (1e-3 if not given), which a
        cosine takes to 0 over ``num_steps``.
    :param ema_decay: decay of the average per step, in [0, 1); 0 averages nothing. It grows to
        this value over the first steps.
    :param validation_fraction: part of the rows that is held out, in [0, 1).
    :param patience: stop after so many evaluations (one per chunk) without a lower validation
        loss; ``None`` for never.
    :param progress_bar: show steps, losses and the time that is left.
    :param chunk_size: steps per compiled call, between which the bar moves and the validation
        loss is taken; by default a fiftieth of ``num_steps``, within 10 to 500.
    :param fit_base: first call ``network.fit_base`` with the training rows and the noise scale of
        the objective, where the network has it.
    :param checkpoint: a file that is written every few seconds, as a whole or not at all. A fit
        that was killed, or interrupted, goes on from it when it is started again with the same
        arguments, to the network that it would have learned; one that had ended returns what it
        returned.
    :return: the learned network and its history. A loss or parameter that is not finite, or a
        keyboard interrupt, ends the fit with a :class:`~numpyro_score.training.FitWarning` and
        the average over the last parameters with a finite loss.
    :raises TypeError: an argument of the wrong kind, or integer data.
    :raises ValueError: data that is not finite, has no event axis or too few rows; a number out
        of its range; an objective that does not return one loss per example.
    :raises CheckpointError: the checkpoint of a fit with other data, settings, key or network, or
        a damaged one.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score import networks, objectives
    >>> from numpyro_score.training import fit
    >>> data = 3.0 + jax.random.normal(jax.random.key(0), (200, 2))
    >>> result = fit(
    ...     jax.random.key(1),
    ...     networks.EnergyMLP(2, width=8, key=jax.random.key(2)),
    ...     data,
    ...     objectives.DenoisingScoreMatching(noise_scale=0.5),
    ...     num_steps=20,
    ...     batch_size=32,
    ...     progress_bar=False,
    ... )
    >>> result.losses.shape, result.stopped
    ((20,), 'finished')
    >>> bool(result.network(jnp.full(2, 3.0)) < result.network(jnp.zeros(2)))
    True
    """
    check_settings(num_steps, batch_size, ema_decay, validation_fraction, patience)
    split_key, loss_key, validation_key = jax.random.split(as_key(rng_key), 3)
    chosen = choose_optimizer(optimizer, learning_rate, num_steps)
    training, validation = split_rows(
        split_key, check_rows(data, condition), validation_fraction, batch_size
    )
    model = as_network(network)
    if fit_base and hasattr(model, "fit_base"):
        noise_scale = getattr(objective, "noise_scale", 0.0)
        model = model.fit_base(training.data, noise_scale, training.condition)
    check_objective(objective, model, training, batch_size, patience)
    params, rest = split_network(model)
    if not jax.tree.leaves(params):
        raise ValueError(
            f"the network, a {type(model).__name__}, has no floating-point arrays to train; "
            "arrays that a function closes over are constants: give (apply_fn, params) instead."
        )
    problem = Problem(rest, objective, chosen, training, loss_key, batch_size, ema_decay)
    size = pick_chunk_size(chunk_size, num_steps)
    kept = None
    if checkpoint is not None:
        facts = {"num_steps": num_steps, "chunk_size": size, "patience": patience}
        kept = Checkpoint(checkpoint, _fingerprint(problem, params, validation) | facts)
    run = Run(problem, params, validation, validation_key, size, kept)
    run.advance(num_steps, patience, progress_bar)
    if run.complaint:
        warnings.warn(run.complaint, FitWarning, stacklevel=2)
    return run.result()


def _fingerprint(problem: Problem, params: PyTree, validation: Rows | None) -> dict[str, Any]:
    """Return what the steps depend on, but for the optimizer, which is a closure."""
    return {
        "network": type(problem.network(params)).__name__,
        "weights": digest_arrays(params)[:16],
        "other arrays": digest_arrays(eqx.filter(problem.rest, is_array))[:16],
        "objective": words(problem.objective),
        "data": digest_arrays((problem.rows, validation))[:16],
        "rng_key": key_digest(problem.rng_key),
        "batch_size": problem.batch_size,
        "ema_decay": problem.ema_decay,
    }
