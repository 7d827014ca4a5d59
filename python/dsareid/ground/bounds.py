"""Bounds that settings declare on their types, as `Annotated[float, Ge(0), Le(1)]`, and their check."""

import dataclasses
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le, MultipleOf

from dsareid.ground.errors import DSAError


def check_bounds(settings: Any, prefix: str = "") -> None:
    """Check each field of a dataclass, and of nested ones, against the bounds in its type.

    Raises:
        DSAError: a setting is out of bounds; the message names it, its bounds and its value.
    """
    for name, kind in get_type_hints(type(settings), include_extras=True).items():
        value = getattr(settings, name)
        if dataclasses.is_dataclass(value):
            check_bounds(value, f"{prefix}{name}.")
        elif get_origin(kind) is tuple and isinstance(value, tuple):
            for item_kind, item in zip(get_args(kind), value):
                _check(f"{prefix}{name}", item_kind, item, value)
        else:
            _check(f"{prefix}{name}", kind, value, value)


def _check(name: str, kind: Any, value: Any, shown: Any) -> None:
    if get_origin(kind) is not Annotated:
        return
    bounds = get_args(kind)[1:]
    least = next((bound.ge for bound in bounds if isinstance(bound, Ge)), None)
    most = next((bound.le for bound in bounds if isinstance(bound, Le)), None)
    within = (least is None or value >= least) and (most is None or value <= most)  # False for NaN
    if not within:
        where = f"at least {least}" if most is None else f"{least}..{most}"
        raise DSAError(f"`{name}` must be {where}, not {shown}")
    for bound in bounds:
        step: Any = bound.multiple_of if isinstance(bound, MultipleOf) else None
        if step is not None and value % step:
            whole = f"1/{round(1 / step)}" if step < 1 else step
            raise DSAError(f"`{name}` must be a multiple of {whole}, not {shown}")
