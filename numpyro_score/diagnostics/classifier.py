"""The classifier two-sample test: how well two sets of draws can be told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from numpyro_score._checks import check_int
from numpyro_score._typing import Array
from numpyro_score.diagnostics._two_samples import two_samples
from numpyro_score.diagnostics.result import Diagnostic

_MIN_DRAWS = 50
_NUM_ERRORS = 3.0


@dataclass(frozen=True, repr=False)
class ClassifierTwoSampleTest(Diagnostic):
    """Result of :func:`classifier_two_sample_test`.

    - **value** - the accuracy of the classifier on draws that it was not trained on.
    - **error** - its standard error.
    - **num_draws** - draws taken of each set.
    """

    num_draws: int

    def reading(self) -> str:
        """Return how far from a guess that is."""
        what = f"accuracy on {self.num_draws} + {self.num_draws} draws, 0.5 for a guess"
        if abs(self.value - 0.5) <= _NUM_ERRORS * self.error:
            return f"{what}: no difference is seen"
        if self.value < 0.5:
            return f"{what}, and worse than one: rows of one set come back in the other"
        return f"{what}, 1 where the sets lie apart: they differ"


def classifier_two_sample_test(
    rng_key: Array, draws: Array, reference: Array, *, num_folds: int = 5
) -> ClassifierTwoSampleTest:
    """Accuracy at which a classifier tells two sets of draws apart (C2ST): 0.5 is not at all.

    As the benchmark of simulation-based inference has it: scikit-learn's ``MLPClassifier`` with two
    hidden layers of 10 d units, cross-validated in five folds, on components with the mean and
    standard deviation of the reference taken out. Of the larger set as many draws are taken, at
    random, as the smaller one has. It is relative to what the classifier can learn from so many
    draws: compare values at the same number of them, and take 0.5 of few draws for little.

    Draws of a chain that are not independent are found among their neighbours in the other folds,
    which raises the accuracy: thin them.

    Sources: D. Lopez-Paz & M. Oquab, Revisiting classifier two-sample tests, ICLR (2017), equation
    2; J.-M. Lueckmann et al., Benchmarking simulation-based inference, AISTATS (2021), appendix.

    :param rng_key: a random key, for the folds, the classifier and which draws are taken.
    :param draws: shape ``(n, *event_shape)``.
    :param reference: exact draws, or draws known to be good, of shape ``(m, *event_shape)``.
    :param num_folds: of the cross-validation.
    :raises ImportError: scikit-learn is not installed.
    :raises ValueError: fewer than 50 draws, events of different shapes, draws that are all one, a
        component that is the same in all of the reference.
    :raises FloatingPointError: a draw is not finite.

    >>> import jax
    >>> from numpyro_score.diagnostics import classifier_two_sample_test
    >>> x, y = jax.random.normal(jax.random.key(0), (2, 200, 2))
    >>> classifier_two_sample_test(jax.random.key(1), x + 2.0, y)
    ClassifierTwoSampleTest(0.9... they differ)
    """
    judge_cls, folds_cls, cross_val_score = _scikit_learn()
    check_int(num_folds, "num_folds", 2)
    x, y = (rows.astype(float) for rows in two_samples(draws, reference, _MIN_DRAWS))
    centre, scale = y.mean(0), y.std(0, ddof=1)
    if not scale.all():
        component = np.unravel_index(np.flatnonzero(scale == 0)[0], np.shape(reference)[1:])
        raise ValueError(
            f"component {tuple(map(int, component))} of an event is the same in all draws of the "
            "reference: leave it out."
        )
    seeds = np.asarray(jax.random.randint(rng_key, (2,), 0, 2**31 - 1))
    num_draws = min(len(x), len(y))
    take = np.random.default_rng(seeds[0])
    x, y = (rows[take.permutation(len(rows))[:num_draws]] for rows in (x, y))
    rows = (np.concatenate([y, x]) - centre) / scale
    labels = np.repeat([0, 1], num_draws)
    seed, width = int(seeds[1]), 10 * rows.shape[1]
    judge = judge_cls((width, width), max_iter=1_000, random_state=seed)
    folds = folds_cls(num_folds, shuffle=True, random_state=seed)
    scores = cross_val_score(judge, rows, labels, cv=folds)
    value = float(scores.mean())
    # Where all are told apart, at least one that is not may have been missed.
    binomial = max(value * (1 - value), 1 / len(rows)) / len(rows)
    error = float(np.sqrt(max(binomial, scores.var(ddof=1) / num_folds)))
    return ClassifierTwoSampleTest(value, error, num_draws)


def _scikit_learn() -> tuple[Any, Any, Any]:
    try:
        from sklearn.model_selection import KFold, cross_val_score
        from sklearn.neural_network import MLPClassifier
    except ImportError as error:
        raise ImportError(
            "classifier_two_sample_test needs scikit-learn: pip install "
            "'numpyro_score[diagnostics]', or scikit-learn itself."
        ) from error
    return MLPClassifier, KFold, cross_val_score
