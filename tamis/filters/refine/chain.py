"""A linear-chain conditional random field: labels of a sequence from binary features.

    score(y | x) = sum over i of W[features of x_i, y_i] + T[y_(i-1), y_i]
    p(y | x) = exp(score(y | x)) / sum over y'

Trained by AdaGrad on -ln p; read by Viterbi. Source: Lafferty, McCallum and Pereira 2001
(Conditional Random Fields); Duchi, Hazan and Singer 2011 (AdaGrad). One thread, in the order that
is given: the same data gives the same weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tamis.kernel import kernel

IMPOSSIBLE = -1e30
_EPSILON = 1e-6
_SMALLEST = 1e-4
"""An error that is not learned from, to save time."""


@kernel
def emissions(features: Any, found: Any, allowed: Any, weights: Any, scores: Any) -> None:
    """scores[i, y] = sum of W[f, y] over the features f of element i; IMPOSSIBLE where y is not
    allowed.

    Args:
        features: (n, most features) int32.
        found: (n,), how many of them there are.
        allowed: (n,), the number of labels that are: 0 to ``allowed[i] - 1``.
        weights: (buckets, labels) float32.
        scores: (n, labels) float64, written.
    """
    labels = weights.shape[1]
    for i in range(len(scores)):
        for y in range(labels):
            scores[i, y] = 0.0 if y < allowed[i] else IMPOSSIBLE
        for k in range(found[i]):
            for y in range(allowed[i]):
                scores[i, y] += weights[features[i, k], y]


@kernel
def viterbi(scores: Any, transitions: Any, best: Any) -> None:
    """The labels of the highest score go to ``best`` (n,); of equal ones those that come first."""
    n, labels = scores.shape
    back = np.zeros((n, labels), np.int8)
    total = scores[0].copy()
    following = np.empty(labels)
    for i in range(1, n):
        for y in range(labels):
            top, where = total[0] + transitions[0, y], 0
            for z in range(1, labels):
                value = total[z] + transitions[z, y]
                if value > top:
                    top, where = value, z
            following[y] = top + scores[i, y]
            back[i, y] = where
        total[:] = following
    best[n - 1] = np.argmax(total)
    for i in range(n - 1, 0, -1):
        best[i - 1] = back[i, best[i]]


@kernel
def _log_sum(values: Any) -> Any:
    top = values[0]
    for value in values:
        top = max(top, value)
    total = 0.0
    for value in values:
        total += np.exp(value - top)
    return top + np.log(total)


@kernel
def marginals(scores: Any, transitions: Any, of_one: Any, of_two: Any) -> Any:
    """p(y_i) goes to ``of_one`` (n, labels), the sum over i of p(y_(i-1), y_i) to ``of_two``
    (labels, labels); gives ln Z.
    """
    n, labels = scores.shape
    forward, backward = np.zeros((n, labels)), np.zeros((n, labels))
    terms = np.empty(labels)
    for i in range(n):
        for y in range(labels):
            for z in range(labels):
                terms[z] = forward[i - 1, z] + transitions[z, y] if i else IMPOSSIBLE
            forward[i, y] = scores[i, y] + (_log_sum(terms) if i else 0.0)
    for i in range(n - 2, -1, -1):
        for z in range(labels):
            for y in range(labels):
                terms[y] = transitions[z, y] + scores[i + 1, y] + backward[i + 1, y]
            backward[i, z] = _log_sum(terms)
    whole = _log_sum(forward[n - 1])
    of_two[:] = 0.0
    for i in range(n):
        for y in range(labels):
            of_one[i, y] = np.exp(forward[i, y] + backward[i, y] - whole)
            for z in range(labels if i else 0):
                behind = transitions[z, y] + scores[i, y] + backward[i, y]
                of_two[z, y] += np.exp(forward[i - 1, z] + behind - whole)
    return whole


@kernel
def learn(features: Any, found: Any, allowed: Any, labels: Any, rate: Any, tables: Any) -> Any:
    """One step of AdaGrad on one sequence; gives -ln p of its labels.

    Args:
        features: See ``emissions``, as ``found`` and ``allowed``.
        found: (n,)
        allowed: (n,)
        labels: (n,), the true ones.
        rate: The learning rate.
        tables: Weights (buckets, labels) float32, the sums of their squared gradients, transitions
            (labels, labels) float64 and theirs; all changed.
    """
    weights, squares, transitions, transition_squares = tables
    n, kinds = len(labels), weights.shape[1]
    scores, of_one = np.empty((n, kinds)), np.empty((n, kinds))
    of_two = np.empty((kinds, kinds))
    emissions(features, found, allowed, weights, scores)
    loss = marginals(scores, transitions, of_one, of_two)
    for i in range(n):
        loss -= scores[i, labels[i]]
        if i:
            loss -= transitions[labels[i - 1], labels[i]]
            of_two[labels[i - 1], labels[i]] -= 1.0
        for y in range(allowed[i]):
            error = of_one[i, y] - (y == labels[i])
            if abs(error) < _SMALLEST:
                continue
            for k in range(found[i]):
                where = features[i, k]
                squares[where, y] += error * error
                weights[where, y] -= rate * error / np.sqrt(squares[where, y] + _EPSILON)
    for z in range(kinds):
        for y in range(kinds):
            error = of_two[z, y]
            transition_squares[z, y] += error * error
            transitions[z, y] -= rate * error / np.sqrt(transition_squares[z, y] + _EPSILON)
    return loss
