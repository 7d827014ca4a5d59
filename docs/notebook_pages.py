"""Notebooks as pages of the site, with the outputs that are in them (a hook of mkdocs.yml).

python docs/notebook_pages.py     run all notebooks and keep their outputs
"""

import base64
import io
import json
from pathlib import Path

NOTEBOOKS = Path(__file__).parent / "notebooks"


def on_files(files, config):
    from mkdocs.structure.files import File

    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        text, pictures = page_of(json.loads(path.read_text()), path.stem)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def page_of(notebook: dict, name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by file name."""
    parts, pictures = [], {}
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                file = f"{name}-{number}-{len(pictures)}.png"
                pictures[file] = base64.b64decode(data["image/png"])
                parts.append(f"![What the cell above shows]({file})")
            elif text := output.get("text") or data.get("text/plain"):
                parts.append("```text\n" + "".join(text).rstrip() + "\n```")
    parts.append(f"*This page is the notebook `docs/notebooks/{name}.ipynb`, with its outputs.*\n")
    return "\n\n".join(parts), pictures


def in_few_colours(png: str) -> str:
    """A picture, base64, as a smaller file."""
    from PIL import Image

    content = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(96, dither=Image.Dither.NONE).save(content, "png", optimize=True)
    return base64.b64encode(content.getvalue()).decode()


def main() -> None:
    import nbformat
    from nbclient import NotebookClient

    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, 4)
        NotebookClient(notebook, record_timing=False, coalesce_streams=True).execute()
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    output.data = {"image/png": in_few_colours(output.data["image/png"])}
        nbformat.write(notebook, path)
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
