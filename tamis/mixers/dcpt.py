"""D-CPT: the loss of a continued training as a function of model size, tokens and share.

    L(N, D, r) = E + A / N^alpha + B r^eta / D^beta + C / (r + epsilon)^gamma

with nine parameters, none negative. For the loss on the new domain r is its share, for the general
loss the share of general data; they are fitted apart. Source: Que et al. 2024 (arXiv 2406.01375),
variant L3. N and D in billions here, so that the parameters are of like size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tamis.mixers.simplex import Float64
from tamis.pipeline.errors import TamisError

NAMES = ("E", "A", "B", "C", "alpha", "beta", "gamma", "eta", "epsilon")
HUBER = 1e-3
_STARTS = 12
_SIZES = 4
_LOW = np.log([1e-3, 1e-6, 1e-6, 1e-6, 0.01, 0.01, 0.01, 0.01, 1e-4])
_HIGH = np.log([10, 100, 100, 100, 3, 3, 5, 5, 1.0])


@dataclass(frozen=True)
class DCPT:
    """A fitted law."""

    parameters: Float64
    """(9,) in the order of ``NAMES``."""
    error: float
    """The largest error of the runs, in nats."""
    warnings: tuple[str, ...] = ()

    def predict(self, size: Float64, tokens: Float64, share: Float64) -> Float64:
        """Losses of runs with so many billion parameters and tokens; arrays broadcast."""
        return loss(self.parameters, *np.broadcast_arrays(size, tokens, share))


def loss(parameters: Float64, size: Float64, tokens: Float64, share: Float64) -> Float64:
    """The law itself."""
    E, A, B, C, alpha, beta, gamma, eta, epsilon = parameters
    return np.asarray(
        E + A / size**alpha + B * share**eta / tokens**beta + C / (share + epsilon) ** gamma
    )


def _gradient(parameters: Float64, size: Float64, tokens: Float64, share: Float64) -> Float64:
    """dL / d log(parameter), (n, 9)."""
    E, A, B, C, alpha, beta, gamma, eta, epsilon = parameters
    sized = A / size**alpha
    trained = B * share**eta / tokens**beta
    mixed = C / (share + epsilon) ** gamma
    logs = np.log(np.maximum(share, 1e-300))
    return np.column_stack(
        [
            np.full(len(size), E),
            sized,
            trained,
            mixed,
            -alpha * np.log(size) * sized,
            -beta * np.log(tokens) * trained,
            -gamma * np.log(share + epsilon) * mixed,
            np.where(share > 0, eta * logs * trained, 0.0),
            -gamma * epsilon / (share + epsilon) * mixed,
        ]
    )


def fit_dcpt(
    size: Float64, tokens: Float64, share: Float64, losses: Float64, starts: int = _STARTS
) -> DCPT:
    """Huber's loss by L-BFGS with exact gradients in the logarithms of the parameters, from several
    starts; the best is kept.

    Args:
        size, tokens: of each run, in billions, (n,); share: of the data whose loss it is, (n,).

    Raises:
        TamisError: if there are fewer runs than parameters.
    """
    from scipy.optimize import least_squares

    size, tokens, share, losses = (
        np.asarray(one, np.float64) for one in (size, tokens, share, losses)
    )
    if len(losses) <= len(NAMES):
        raise TamisError(f"D-CPT has {len(NAMES)} parameters and there are {len(losses)} runs")
    random = np.random.default_rng(0)
    found = []
    for number in range(starts):
        start = _start(losses, random if number else None)
        found.append(
            least_squares(
                lambda x: loss(np.exp(x), size, tokens, share) - losses,
                start,
                lambda x: _gradient(np.exp(x), size, tokens, share),
                bounds=(_LOW, _HIGH),
                loss="huber",
                f_scale=HUBER,
                x_scale="jac",
                max_nfev=400,
                xtol=1e-12,
                ftol=1e-12,
                gtol=1e-12,
            )
        )
    best = min(found, key=lambda one: float(one.cost))
    parameters = np.exp(best.x)
    missed = np.abs(loss(parameters, size, tokens, share) - losses)
    return DCPT(parameters, float(missed.max()), _warnings(parameters, size, tokens, share))


def _start(losses: Float64, random: np.random.Generator | None) -> Float64:
    """The first start is a typical law, the others are around it."""
    typical = np.array([0.7 * losses.min(), 0.4, 0.3, 0.1, 0.35, 0.3, 0.5, 0.3, 0.05])
    logs = np.log(typical)
    if random is not None:
        logs = logs + random.normal(scale=0.8, size=len(logs))
    return np.asarray(np.clip(logs, _LOW + 1e-9, _HIGH - 1e-9))


def _warnings(
    parameters: Float64, size: Float64, tokens: Float64, share: Float64
) -> tuple[str, ...]:
    found = []
    sizes = len(np.unique(size))
    if sizes < _SIZES:
        found.append(
            f"{sizes} model sizes do not tell E from A / N^alpha: losses of another size are "
            f"guessed; it takes {_SIZES}"
        )
    smallest = share[share > 0].min()
    ratios = np.linspace(smallest, share.max(), 50)
    _, _, B, C, _, beta, gamma, eta, epsilon = parameters
    for one in np.unique(tokens):
        falls = C * gamma / (ratios + epsilon) ** (gamma + 1)
        rises = B * eta * ratios ** (eta - 1) / one**beta
        if (rises >= falls).any():
            found.append("the fitted loss does not fall everywhere as the share grows")
            break
    return tuple(found)


def best_share(
    domain: DCPT,
    general: DCPT,
    size: float,
    tokens: float,
    limit: float,
) -> float:
    """The share of the domain that makes its loss smallest while the general loss is at most
    ``limit``.

    Raises:
        TamisError: if no share keeps it.
    """
    shares = np.linspace(0, 1, 10_001)
    one, all_tokens = np.full_like(shares, size), np.full_like(shares, tokens)
    kept = general.predict(one, all_tokens, 1 - shares) <= limit
    if not kept.any():
        raise TamisError(f"no share keeps the general loss at {limit:.4g}")
    losses = np.where(kept, domain.predict(one, all_tokens, shares), np.inf)
    return float(shares[int(losses.argmin())])


def best_share_of_fixed_data(domain: DCPT, size: float, domain_tokens: float) -> float:
    """The share that makes the domain's loss smallest when there are only so many (billion) tokens
    of it, so that a smaller share means a longer training: D = domain_tokens / r.
    """
    shares = np.linspace(0.01, 1, 9901)
    losses = domain.predict(np.full_like(shares, size), domain_tokens / shares, shares)
    return float(shares[int(losses.argmin())])


def best_size(domain: DCPT, flops: float, share: float) -> tuple[float, float]:
    """(N, D) in billions with 6 N D = flops that make the domain's loss smallest at a share."""
    sizes = np.geomspace(1e-3, 1e3, 4001)
    tokens = flops / 6e18 / sizes
    losses = domain.predict(sizes, tokens, np.full_like(sizes, share))
    at = int(losses.argmin())
    return float(sizes[at]), float(tokens[at])
