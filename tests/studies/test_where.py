"""What a map says of its person, and the thirds that queries fall into, by hand."""

import numpy as np
import pytest

from studies.real import where


def test_facts_of_a_map():
    iuv = np.zeros((20, 10, 3), np.uint8)
    assert where.facts(iuv) == {"front": None, "parts": 0, "offset": None}
    iuv[4:8, 2:8, 0] = where.FRONT  # 24 pixels
    iuv[8, 2:8, 0] = where.BACK  # 6
    iuv[9, 0:7, 0] = 23  # one pixel too few to be seen
    found = where.facts(iuv)
    assert found["front"] == pytest.approx(24 / 30) and found["parts"] == 1
    rows, columns = np.nonzero(iuv[..., 0])
    away = ((rows.mean() - 9.5) ** 2 + (columns.mean() - 4.5) ** 2) ** 0.5
    assert found["offset"] == pytest.approx(away / 20)


def test_terciles_are_the_values_own():
    assert where.terciles([5, 1, 3, None, 2, 4, 6]).tolist() == [2, 0, 1, -1, 0, 1, 2]


def test_the_table_takes_differences_query_by_query():
    values = {name: [0.1, 0.5, 0.9, None] for name in where.NAMES}
    arms = {"two-branch": np.array([0.2, 0.4, 0.6, 0.8]), "form": np.array([0.3, 0.4, 0.5, 0.8])}
    table = where.table(values, arms, "two-branch")
    assert "| back (1; 1 left out) | 20.0 | 30.0 (+10.0) |" in table
    assert "| front (1) | 60.0 | 50.0 (-10.0) |" in table
    assert len(table.splitlines()) == 2 + 9
