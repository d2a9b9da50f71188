"""The cheapest one-to-one assignment (Hungarian method, shortest augmenting paths), in plain numpy."""

from __future__ import annotations

import numpy as np


def assign(cost: np.ndarray) -> np.ndarray:
    """Column of each row, int64 [n], such that the sum of `cost` [n, m] is smallest; n <= m, finite costs."""
    cost = np.asarray(cost, dtype=np.float64)
    rows, columns = cost.shape
    best = cost.argmin(axis=1)
    if len(set(best.tolist())) == rows:  # nearly always so between neighbouring frames
        return best.astype(np.int64)
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    row_of = np.full(columns, -1, dtype=np.int64)
    for start in range(rows):
        distance = np.full(columns, np.inf)
        came_from = np.full(columns, -1, dtype=np.int64)
        done = np.zeros(columns, dtype=bool)
        row, column, length = start, -1, 0.0
        while row >= 0:
            step = length + cost[row] - row_price[row] - column_price
            shorter = ~done & (step < distance)
            distance[shorter], came_from[shorter] = step[shorter], column
            column = int(np.where(done, np.inf, distance).argmin())
            length, done[column], row = distance[column], True, int(row_of[column])
        # Prices of everything reached change so that reduced costs stay non-negative.
        reached = np.flatnonzero(done)
        column_price[reached] += distance[reached] - length
        row_price[start] += length
        inner = reached[row_of[reached] >= 0]
        row_price[row_of[inner]] += length - distance[inner]
        while column >= 0:
            previous = int(came_from[column])
            row_of[column] = start if previous < 0 else row_of[previous]
            column = previous
    result = np.empty(rows, dtype=np.int64)
    used = np.flatnonzero(row_of >= 0)
    result[row_of[used]] = used
    return result
