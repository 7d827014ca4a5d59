"""Every operation by its record in dsa_ext/selftest/operations: its cases on every device, torch's own checks
of what is registered, and that a wrong result would be seen."""

import importlib
from collections import defaultdict

import pytest
import torch

from dsa_ext.selftest.__main__ import table
from dsa_ext.selftest.operation import compare
from dsa_ext.selftest.operations import OPERATIONS

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
GROUPS = {title: cases for operation in OPERATIONS for title, cases in operation.cases().items()}
TABLE = table(quick=False)  # those and the ones of dsa_ext/selftest/paths.py
NAMES = {operation.name: operation for operation in OPERATIONS}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("title", TABLE)
def test_the_same_bits(title, device):
    """The CPU backend as the twin, CUDA as the CPU backend."""
    found = ((case.label, compare(case, device)) for case in TABLE[title])
    assert {label: wrong for label, wrong in found if wrong} == {}


def declared() -> set[str]:
    """The names of all operations but resize_table, which is called where torch.compile traces alone."""
    names = torch._C._dispatch_get_all_op_names()
    return {name[9:] for name in names if name.startswith("dsa_ext::")} - {"resize_table"}


def recorded(title: str, device: str, monkeypatch) -> dict[str, list[tuple]]:
    """By operation the arguments of up to three calls that cases of the group make, gradients included."""
    calls: dict[str, list[tuple]] = defaultdict(list)
    cases = GROUPS[title]
    with monkeypatch.context() as patch:
        for name in declared():

            def record(*arguments, name=name, operation=getattr(torch.ops.dsa_ext, name)):
                calls[name].append(arguments)
                return operation(*arguments)

            patch.setattr(torch.ops.dsa_ext, name, record)
        for case in [*cases[:: max(1, len(cases) // 6)], cases[-1]]:
            case.ours(device)
    return {name: found[:: max(1, len(found) // 2)] for name, found in calls.items()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("title", GROUPS)
def test_opcheck(title, device, monkeypatch):
    """Schemas, fake kernels, gradients and torch.compile agree with what is computed."""
    for name, calls in recorded(title, device, monkeypatch).items():
        for arguments in calls:
            torch.library.opcheck(getattr(torch.ops.dsa_ext, name).default, arguments)


def test_every_declared_operation_is_called_by_a_case(monkeypatch):
    called = {name for title in GROUPS for name in recorded(title, "cpu", monkeypatch)}
    assert called == declared() and len(called) >= 9


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_result_is_seen(name, monkeypatch):
    operation = NAMES[name]
    module = importlib.import_module(f"dsa_ext.selftest.operations.{name}")

    def wrong(*arguments, **options):
        results = operation.function(*arguments, **options)
        with torch.no_grad():
            for x in results if isinstance(results, tuple) else (results,):
                if x is not None and x.numel():
                    x[(0,) * x.dim()] += 1
        return results

    monkeypatch.setattr(module, operation.function.__name__, wrong)
    cases = next(iter(operation.cases().values()))
    assert "elements differ, the first at (0" in compare(cases[0], "cpu")
