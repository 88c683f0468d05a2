"""The one form in which notebooks are kept in git, and the command that makes it (`make notebooks`).

Normal form: nbformat 4.5, readable cell ids, execution counts 1..n, kernelspec python3, no metadata of tools, no
stderr, no progress bars, figures kept as PNG, streams of a cell joined.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")


def normalize_notebook(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Give the notebook in normal form, outputs kept."""
    result = nbformat.from_dict(notebook)
    result.metadata = nbformat.from_dict(METADATA)
    result.nbformat, result.nbformat_minor = 4, 5
    count = 0
    for cell in result.cells:
        cell.metadata = nbformat.from_dict({"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {})
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = _normalize_outputs(cell.outputs, count)
    return result


def _normalize_outputs(outputs: list[nbformat.NotebookNode], count: int) -> list[nbformat.NotebookNode]:
    kept: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            continue
        if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
            kept[-1].text += output.text
            continue
        if output.output_type == "execute_result":
            output.execution_count = count
        output.pop("metadata", None)
        if output.output_type != "stream":
            output.metadata = nbformat.from_dict({})
        kept.append(output)
    return kept


def execute(path: Path, run_dir: Path) -> nbformat.NotebookNode:
    """Execute a notebook top to bottom as committed, into a run folder, with nobody watching."""
    os.environ.update({"FGTOOLS_RUN_DIR": str(run_dir), "HF_HUB_OFFLINE": "1"})
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=36000, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    return notebook


def main() -> None:
    """Put the notebooks in normal form; with --execute, run them first."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--execute", action="store_true")
    parser.add_argument("--run-dir", type=Path, default=NOTEBOOKS.parent / "runs" / "committed")
    parser.add_argument("stages", nargs="*", help="numbers of the notebooks; all when none is given")
    options = parser.parse_args()
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if options.stages and path.name[:2] not in options.stages:
            continue
        notebook = execute(path, options.run_dir.absolute()) if options.execute else nbformat.read(path, as_version=4)
        nbformat.write(normalize_notebook(notebook), path)
        print(path.name)


if __name__ == "__main__":
    main()
