"""The HTML pages' templates, which lie beside this module."""

from importlib import resources
from typing import Any

import jinja2


def render_page(name: str, content: dict[str, Any]) -> str:
    """Render a template with the variables in `content`; a variable that is missing raises."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    return environment.get_template(name).render(content)


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
