"""What a code gives away: linear probes that are judged on people they have not seen.

* ``ridge``: how much of some targets (pose, expression) a linear map predicts, R². Zero is chance;
  a useless code falls slightly below, since people are held out.
* ``same_person``: do two codes belong to one person? Logistic regression on |difference|, AUC.
  0.5 is chance.
* ``which_person``: which of the N people is it? Softmax regression, judged on states it has not
  seen (who somebody is can't be learned without having met them). 1 / N is chance.

Penalties are chosen among the training rows alone. All are deterministic given their arguments.
``groups`` says whose each row is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logsumexp
from scipy.stats import rankdata

RIDGES = tuple(10.0**k for k in range(-2, 5))
FOLDS = 5
ROUNDS = 500
PENALTIES = (1.0, 10.0, 100.0)  # of the logistic probes, on standardised codes


def held_out_folds(groups: np.ndarray, folds: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Boolean masks (N,) of the test rows; every group lies in exactly one fold."""
    names = np.unique(groups)
    order = rng.permutation(len(names))
    parts = np.array_split(names[order], min(folds, len(names)))
    return [np.isin(groups, part) for part in parts]


def _standard(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, std = train.mean(0), train.std(0)
    std = np.where(std > 1e-9, std, np.inf)  # a constant number says nothing
    return (train - mean) / std, (test - mean) / std


def _ridge_predict(
    x: np.ndarray, y: np.ndarray, test: np.ndarray, penalties: tuple[float, ...]
) -> np.ndarray:
    """Predictions (P, M, T) of the test rows (M, D), one per penalty."""
    a, b = _standard(x, test)
    mean = y.mean(0)
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    projected, seen = u.T @ (y - mean), b @ vt.T
    return np.stack([seen @ ((s / (s * s + p))[:, None] * projected) + mean for p in penalties])


def ridge(
    code_ND: np.ndarray, target_NT: np.ndarray, groups_N: np.ndarray, *, seed: int = 0
) -> dict[str, Any]:
    """R² of a ridge regression on held-out people, and its 95 % interval over people.

    The penalty is chosen inside the training people alone. R² is relative to the training people's
    mean and averaged over targets that vary; ``per_target`` has each (NaN where constant).
    """
    x, y = np.asarray(code_ND, np.float64), np.asarray(target_NT, np.float64)
    groups, rng = np.asarray(groups_N), np.random.default_rng(seed)
    if len(np.unique(groups)) < 3:
        return _nothing()
    missed, spread = np.zeros_like(y), np.zeros_like(y)
    for test in held_out_folds(groups, FOLDS, rng):
        train = ~test
        inner = np.zeros(len(RIDGES))
        scale = y[train].std(0) + 1e-12
        for part in held_out_folds(groups[train], FOLDS, rng):
            if part.all():
                continue
            xs, ys = x[train], y[train]
            guess = _ridge_predict(xs[~part], ys[~part], xs[part], RIDGES)
            inner += (((guess - ys[part]) / scale) ** 2).sum((1, 2))
        best = (RIDGES[int(np.argmin(inner))],)
        guess = _ridge_predict(x[train], y[train], x[test], best)[0]
        missed[test] = (y[test] - guess) ** 2
        spread[test] = (y[test] - y[train].mean(0)) ** 2
    used = y.std(0) > 1e-6
    names = np.unique(groups)
    lost = np.stack([missed[groups == g].sum(0) for g in names])
    all_ = np.stack([spread[groups == g].sum(0) for g in names])

    def score(rows: np.ndarray) -> np.ndarray:
        return 1 - lost[rows].sum(-2) / np.maximum(all_[rows].sum(-2), 1e-12)

    each = np.where(used, score(np.arange(len(names))), np.nan)
    draws = score(rng.integers(0, len(names), (ROUNDS, len(names))))[:, used].mean(1)
    return {
        "score": float(each[used].mean()), **_interval(draws), "chance": 0.0,
        "per_target": each.tolist(),
    }  # fmt: skip


def _nothing() -> dict[str, Any]:
    return {"score": float("nan"), "low": float("nan"), "high": float("nan"), "chance": 0.0}


def _interval(draws: np.ndarray) -> dict[str, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"low": float(low), "high": float(high)}


def auc(score: np.ndarray, truth: np.ndarray) -> float:
    """Probability that a true one scores above a false one; ties count half (Mann-Whitney)."""
    positive = np.asarray(truth, bool)
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * m))


def same_person(
    code_ND: np.ndarray, groups_N: np.ndarray, *, seed: int = 0, per_row: int = 4
) -> dict[str, Any]:
    """AUC of telling pairs of one person from pairs of two, on people that were held out.

    ``per_row`` pairs of either kind are drawn per row, partners within the same fold. Intervals
    resample the people of the first codes.
    """
    x, groups = np.asarray(code_ND, np.float64), np.asarray(groups_N)
    rng = np.random.default_rng(seed)
    names = np.unique(groups)
    if len(names) < 4:
        return _nothing() | {"chance": 0.5}
    scores, truths, firsts, folds = [], [], [], []

    def tell(train: np.ndarray, test: np.ndarray, penalty: float) -> tuple[np.ndarray, ...]:
        """Scores of pairs among the test rows, whether they are right, and the first of each."""
        i, j, same = _draw_pairs(groups, np.flatnonzero(train), rng, per_row)
        m, n, right = _draw_pairs(groups, np.flatnonzero(test), rng, per_row)
        a, b = _standard(np.abs(x[i] - x[j]), np.abs(x[m] - x[n]))
        return b @ _logistic(a, same, penalty), right, m

    # At least two people in every fold, or there would be nobody to be told apart from.
    for k, test in enumerate(held_out_folds(groups, min(FOLDS, len(names) // 2), rng)):
        known = rng.permutation(np.unique(groups[~test]))
        inner, worth = np.isin(groups, known[::2]), [0.0] * len(PENALTIES)
        if len(known) > 3:  # else there would be nobody to choose a penalty on
            worth = [auc(*tell(~test & ~inner, inner, p)[:2]) for p in PENALTIES]
        score_M, right_M, row_M = tell(~test, test, PENALTIES[int(np.argmax(worth))])
        scores.append(score_M)
        truths.append(right_M)
        firsts.append(groups[row_M])
        folds.append(np.full(len(row_M), k))
    score, truth = np.concatenate(scores), np.concatenate(truths)
    first, fold = np.concatenate(firsts), np.concatenate(folds)

    def mean_auc(rows: np.ndarray) -> float:
        # Scores of different folds come from different fits and are not compared.
        each = [auc(score[rows][fold[rows] == k], truth[rows][fold[rows] == k])
                for k in np.unique(fold[rows])]  # fmt: skip
        return float(np.nanmean(each))

    where = {g: np.flatnonzero(first == g) for g in names}
    draws = []
    for _ in range(ROUNDS // 5):
        chosen = rng.choice(names, len(names))
        draws.append(mean_auc(np.concatenate([where[g] for g in chosen])))
    return {"score": mean_auc(np.arange(len(score))), **_interval(np.array(draws)), "chance": 0.5}


def _draw_pairs(
    groups: np.ndarray, rows: np.ndarray, rng: np.random.Generator, per_row: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of pairs within ``rows`` and whether they are of one person; as many of either."""
    first, second, same = [], [], []
    for i in rows:
        own = rows[(groups[rows] == groups[i]) & (rows != i)]
        foreign = rows[groups[rows] != groups[i]]
        if not len(own) or not len(foreign):
            continue
        for pool, kind in ((own, True), (foreign, False)):
            first += [i] * per_row
            second += rng.choice(pool, per_row).tolist()
            same += [kind] * per_row
    return np.array(first, int), np.array(second, int), np.array(same, bool)


def _logistic(x: np.ndarray, truth: np.ndarray, penalty: float) -> np.ndarray:
    """Weights (D,) of an L2-penalised logistic regression; its constant is left out."""
    sign = np.where(truth, 1.0, -1.0)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ w[:-1] + w[-1])
        pull = -sign * expit(-margin) / len(x)
        value = np.logaddexp(0, -margin).mean() + penalty * (w[:-1] ** 2).sum() / (2 * len(x))
        slope = np.append(x.T @ pull + penalty * w[:-1] / len(x), pull.sum())
        return float(value), slope

    return minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x[:-1]


def which_person(
    code_ND: np.ndarray, groups_N: np.ndarray, *, seed: int = 0, folds: int = 4
) -> dict[str, Any]:
    """Share of unseen states whose person a softmax regression names; interval over people."""
    x, groups = np.asarray(code_ND, np.float64), np.asarray(groups_N)
    names, who = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = np.bincount(who)
    if len(names) < 2 or counts.min() < 2:
        return _nothing() | {"chance": 1 / max(len(names), 1)}
    fold = np.empty(len(x), int)
    for g in range(len(names)):  # every person's states are spread over all folds
        rows = np.flatnonzero(who == g)
        fold[rng.permutation(rows)] = np.arange(len(rows)) % folds

    def guess(train: np.ndarray, test: np.ndarray, penalty: float) -> np.ndarray:
        a, b = _standard(x[train], x[test])
        weights = _softmax(a, who[train], len(names), penalty)
        return (b @ weights[:-1] + weights[-1]).argmax(1) == who[test]

    right = np.zeros(len(x))
    for k in np.unique(fold):
        train, test = fold != k, fold == k
        inner = train & (fold == fold[train][0])
        outer = train & ~inner
        worth = [guess(outer, inner, p).mean() for p in PENALTIES] if outer.any() else [0.0]
        right[test] = guess(train, test, PENALTIES[int(np.argmax(worth))])
    each = np.array([right[who == g].sum() for g in range(len(names))])
    draws = rng.integers(0, len(names), (ROUNDS, len(names)))
    shares = each[draws].sum(1) / counts[draws].sum(1)
    return {"score": float(right.mean()), **_interval(shares), "chance": 1 / len(names)}


def _softmax(x: np.ndarray, who: np.ndarray, classes: int, penalty: float) -> np.ndarray:
    """Weights (D + 1, classes) of an L2-penalised softmax regression, the constant last."""
    target = np.eye(classes)[who]
    padded = np.concatenate([x, np.ones((len(x), 1))], 1)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(-1, classes)
        logits = padded @ w
        norm = logsumexp(logits, axis=1, keepdims=True)
        cost = penalty * (w[:-1] ** 2).sum() / (2 * len(x))
        slope = padded.T @ (np.exp(logits - norm) - target) / len(x)
        slope[:-1] += penalty * w[:-1] / len(x)
        return float((norm[:, 0] - (logits * target).sum(1)).mean() + cost), slope.ravel()

    start = np.zeros(padded.shape[1] * classes)
    return minimize(loss, start, jac=True, method="L-BFGS-B").x.reshape(-1, classes)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown of rows ``{"question", "code", "measure", score, low, high, chance}``."""
    lines = ["| question | code | measure | value | 95 % | chance |", "|---|---|---|---|---|---|"]
    for r in rows:
        lines.append(
            f"| {r['question']} | {r['code']} | {r['measure']} | {r['score']:.2f} "
            f"| {r['low']:.2f} .. {r['high']:.2f} | {r['chance']:.2f} |"
        )
    return "\n".join(lines)
