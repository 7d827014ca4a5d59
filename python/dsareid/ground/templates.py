"""HTML pages from templates that lie beside the module that shows them."""

from importlib import resources
from typing import Any

import jinja2


def render_page(package: str, name: str, content: dict[str, Any]) -> str:
    """Render a template of a package with the variables in `content`; a variable that is missing raises."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda file: read_resource(package, file)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    return environment.get_template(name).render(content)


def read_resource(package: str, name: str) -> str:
    """The text of a file that lies beside the modules of a package."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
