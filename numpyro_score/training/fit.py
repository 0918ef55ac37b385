"""Fit a network to data."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import optax

from numpyro_score._array_file import digest_arrays, key_digest
from numpyro_score._checks import is_array
from numpyro_score._contents import digest_contents, digest_structure, words
from numpyro_score._typing import Array, PyTree
from numpyro_score.networks import as_network
from numpyro_score.training._arguments import (
    as_key,
    check_objective,
    check_settings,
    check_validation,
    choose_sharding,
    pick_chunk_size,
)
from numpyro_score.training._batch_iterator import is_batches
from numpyro_score.training._checkpoint import Checkpoint
from numpyro_score.training._data import Rows
from numpyro_score.training._judge import Judge, find_fault
from numpyro_score.training._loop import Problem, is_slow_in_loops, split_network
from numpyro_score.training._optimizer import choose_optimizer, describe_optimizer
from numpyro_score.training._prepare import prepare
from numpyro_score.training._run import Run
from numpyro_score.training._sources import Feed, Source
from numpyro_score.training.result import FitResult, FitWarning


def fit(
    rng_key: Array,
    network: Any,
    data: Array | Iterable[Any],
    objective: Any,
    *,
    num_steps: int,
    batch_size: int | None = None,
    condition: Array | None = None,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float | None = None,
    ema_decay: float = 0.999,
    validation_fraction: float | None = None,
    validation_data: Any = None,
    metrics: Mapping[str, Callable[..., Any]] | None = None,
    patience: int | None = None,
    progress_bar: bool = True,
    chunk_size: int | None = None,
    fit_base: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> FitResult:
    """Fit an energy or a score to data.

    Each step draws a minibatch with replacement and follows the gradient of its mean loss. The
    returned network is an exponential moving average (EMA) of the steps; with validation rows,
    the one that did best on them, unless the value of the objective tells nothing (contrastive
    divergence). The arguments are left as they are.

    :param rng_key: random key, typed or legacy; it fixes the split, minibatches and noise.
    :param network: anything that :func:`~numpyro_score.networks.as_network` accepts.
    :param data: finite floating-point numbers of shape ``(n, *event_shape)``: an array, which
        goes to the device as a whole; a ``numpy.memmap`` (``np.load(file, mmap_mode="r")``), of
        which each chunk of steps reads the rows that it takes; or something that gives batches,
        one for each step, all of one shape: arrays ``(batch_size, *event_shape)``, or pairs of
        such an array and its conditions. Batches that can be iterated over again (a data loader)
        start anew at their end; an iterator that ends, ends the fit with a warning. The first
        4,096 rows, or more of many entries or many validation rows, are read before the first
        step, to see what the data are like, but never more batches than there are steps.
    :param objective: ``objective(network, batch, key[, condition])`` that returns one loss per
        example, such as :class:`~numpyro_score.objectives.DenoisingScoreMatching`. One that has
        a memory, such as :class:`~numpyro_score.objectives.PersistentContrastiveDivergence`, has
        ``init_memory(rng_key, data, condition)`` and ``update(network, batch, key, memory,
        condition)``, which returns the losses and the memory after the step.
    :param num_steps: number of steps.
    :param batch_size: rows per step, at most the number of training rows; 256 if not given, or all
        of fewer; an iterator decides itself.
    :param condition: array of shape ``(n, ...)`` for a conditional network.
    :param optimizer: an Optax optimizer; by default Adam behind a clip of the gradient's global
        norm at 10.
    :param learning_rate: initial rate of the default optimizer (1e-3 if not given), which a
        cosine takes to 0 over ``num_steps``.
    :param ema_decay: decay of the average per step, in [0, 1); 0 averages nothing. It grows to
        this value over the first steps.
    :param validation_fraction: part of the rows that is held out, in [0, 1); a tenth if not
        given, of a memory map at most 10,000 rows, of an iterator none.
    :param validation_data: rows to hold out instead, of shape ``(m, *event_shape)``; a pair with
        their conditions for a conditional network.
    :param metrics: functions ``metric(network, data[, condition])`` by name, each of which returns
        a number for the validation rows; taken with the validation loss, compiled.
    :param patience: stop after so many evaluations (one per chunk) without a lower validation
        loss; ``None`` for never.
    :param progress_bar: show steps, losses and the time that is left.
    :param chunk_size: steps per compiled call, between which the bar moves and the validation
        loss is taken; by default a fiftieth of ``num_steps``, within 10 to 500, but up to a tenth
        where validation would cost more than a fiftieth of the time.
    :param fit_base: first call ``network.fit_base`` with the training rows and the noise scale of
        the objective, where the network has it.
    :param checkpoint: a file that is written every few seconds, as a whole or not at all. A fit
        that was killed, or interrupted, goes on from it when it is started again with the same
        arguments, to the network that it would have learned; one that had ended returns what it
        returned. Where it cannot be written, a warning says so once, and the fit goes on. An
        iterator is read over from its first batch, and has to give the same ones. Other arguments
        are refused where they can be told apart. Functions cannot: an optimizer that is given is
        known by the structure of its state, but not by its learning rate; an objective or metric
        that is a function by its name, but not by what it closes over.
    :param devices: split each batch over these devices, with the result of one but for rounding;
        None for one device.
    :return: the learned network and its history. A loss or parameter that is not finite, or a
        keyboard interrupt, ends the fit with a :class:`~numpyro_score.training.FitWarning` and
        the average over the last parameters with a finite loss. The same warning tells of a
        network that has learned its rows by heart: more than half of what the loss fell on them,
        and beyond doubt, is not there on held-out rows.
    :raises TypeError: an argument of the wrong kind, or integer data.
    :raises ValueError: data that is not finite, has no event axis or too few rows; a number out
        of its range; an objective that does not return one loss per example; a ``checkpoint`` in
        a folder that is not there.
    :raises CheckpointError: the checkpoint of a fit with other data, settings, key, objective,
        optimizer or network, of an older version of this package, or a damaged one.

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
    check_settings(num_steps, batch_size, ema_decay)
    metrics = {} if metrics is None else dict(metrics)
    fraction = check_validation(
        validation_fraction, validation_data, not is_batches(data), patience, metrics
    )
    split_key, loss_key, validation_key = jax.random.split(as_key(rng_key), 3)
    chosen = choose_optimizer(optimizer, learning_rate, num_steps)
    model = as_network(network)
    columns = getattr(model, "columns", None)
    source, validation = prepare(
        data,
        condition,
        batch_size,
        fraction,
        validation_data,
        split_key,
        loss_key,
        columns,
        num_steps,
    )
    batch_size, sample = source.batch_size, source.sample
    sharding = choose_sharding(devices, batch_size)
    if fit_base and hasattr(model, "fit_base"):
        noise_scale = getattr(objective, "noise_scale", 0.0)
        model = model.fit_base(sample.data, noise_scale, sample.condition)
    program = check_objective(objective, model, sample, batch_size, patience)
    params, rest = split_network(model)
    if not jax.tree.leaves(params):
        raise ValueError(
            f"the network, a {type(model).__name__}, has no floating-point arrays to train; "
            "arrays that a function closes over are constants: give (apply_fn, params) instead."
        )
    problem = Problem(
        rest,
        objective,
        chosen,
        source.rows,
        loss_key,
        batch_size,
        ema_decay,
        sharding,
        one_by_one=is_slow_in_loops(program),
    )
    size = pick_chunk_size(
        chunk_size, num_steps, source, 0 if validation is None else len(validation)
    )
    kept = None
    if checkpoint is not None:
        facts = {
            "num_steps": num_steps,
            "chunk_size": size,
            "patience": patience,
            "metrics": sorted(metrics),
        }
        facts |= describe_optimizer(optimizer, learning_rate)
        kept = Checkpoint(checkpoint, _fingerprint(problem, params, source, validation) | facts)
    judge = None if validation is None else Judge(problem, validation, validation_key, metrics)
    run = Run(problem, params, Feed(source, size), judge, kept)
    run.advance(num_steps, patience, progress_bar)
    result = run.result()
    for complaint in filter(None, (run.complaint, _find_fault(result))):
        warnings.warn(complaint, FitWarning, stacklevel=2)
    return result


def _find_fault(result: FitResult) -> str:
    return "" if result.final_losses is None else find_fault(result.final_losses)


def _fingerprint(
    problem: Problem, params: PyTree, source: Source, validation: Rows | None
) -> dict[str, Any]:
    """Return what the steps depend on, but for their number and the optimizer."""
    network = problem.network(params)
    return {
        "network": type(network).__name__,
        "structure": digest_structure(network),
        "weights": digest_contents(params),
        "other arrays": digest_contents(eqx.filter(problem.rest, is_array)),
        "objective": words(problem.objective),
        "contents of the objective": digest_contents(problem.objective),
        "data": source.digest()[:16],
        "validation data": digest_arrays(validation)[:16],
        "rng_key": key_digest(problem.rng_key),
        "batch_size": problem.batch_size,
        "ema_decay": problem.ema_decay,
    }
