"""Steps of several networks in turns: what is written, and what is made of it."""

import dataclasses
import json
from pathlib import Path

import pytest

from studies.real import cost, stages


@pytest.fixture
def costs():
    """texture takes 3 % longer a step, and 4 s before the first; pool 25 %; stripes less than two-branch."""
    ratios = {"two-branch": 1.0, "texture": 1.03, "pool": 1.25, "pool-stripes": 0.97}
    forms = {
        name: {
            "seconds": 0.25 * ratio,
            "ratio": ratio,
            "quartiles": [ratio - 0.01, ratio + 0.02],
            "once": 4.0 if name == "texture" else 0.0,
            "memory": 1_234_000_000,
        }
        for name, ratio in ratios.items()
    }
    return {"steps": 80, "forms": forms}


@pytest.mark.parametrize(
    ("form", "epochs"),
    [
        ("two-branch", 8),
        ("texture", 9),  # 8.24, and 4 s are .2 epochs of 20 s
        ("pool", 10),
        ("pool-stripes", 8),  # never shorter than the preset
    ],
)
def test_two_branch_trains_for_as_long(costs, form, epochs):
    assert cost.equal_epochs(costs, form, 8) == epochs


def test_the_table_has_a_row_a_form(costs):
    costs["forms"]["pool"]["memory"] = None
    table = cost.table(costs)
    assert "| texture | 258 | 1.03 (1.02 to 1.05) | 4.0 | 1,234 MB |" in table
    assert "| pool | 312 | 1.25 (1.24 to 1.27) | 0.0 | - |" in table


def test_forms_take_their_steps_in_turns(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "ROUNDS", 2)
    monkeypatch.setattr(cost, "STEPS", 1)
    monkeypatch.setattr(cost.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(cost, "training_peak", lambda config, people, batch, device: 1000 * people * batch)
    arms = stages.costed_arms()
    configs = {
        name: dataclasses.replace(
            arms[name].config(Path("w"), tmp_path, Path("none"), 0),
            data=tiny_data,
            identities=2,
            images=2,
            weights="none",
        )
        for name in ("two-branch", "texture")
    }
    cost.write_costs(configs, tmp_path / "cost.json")
    found = json.loads((tmp_path / "cost.json").read_text())
    assert found["steps"] >= 2 and found["measured"] == "2 rounds of 1 steps"
    alone, texture = (found["forms"][name] for name in ("two-branch", "texture"))
    assert alone["ratio"] == 1.0 and alone["quartiles"] == [1.0, 1.0] and 0 == alone["once"] < texture["once"]
    assert texture["memory"] == 16_000 and 0 < alone["seconds"]
    assert cost.equal_epochs(found, "texture", 8) >= 8
