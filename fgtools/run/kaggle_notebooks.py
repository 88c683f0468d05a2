"""The notebook of a kernel: the committed one without outputs and with parameters, or one that runs the whole series.

Knows notebooks as JSON and the cell tagged `parameters`; writes no file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgtools.files import read_json
from fgtools.run.kaggle_metadata import RUN_ALL, KaggleError
from fgtools.run.stages import STAGES

_FILES = ("DATA", "TOOLS", "BENCHMARK")
"""Parameters that may name a file of the machine that builds."""

_ARCHIVES = (".gz", ".zip", ".tar", ".tgz", ".bz2", ".xz", ".7z")
"""What Kaggle may unpack when it is uploaded, so that it has another name there."""

_TITLE = """\
# FunctionGemma, the whole series

The six notebooks in order, each in a process of its own. Their executed copies lie in `run/notebooks` of the output."""

_RUN = """\
from IPython.display import Image, display

from fgtools.run.folder import open_run
from fgtools.run.notebooks import render_summary, run_series

run = open_run()
run_series(run.root, PARAMETERS)
print(render_summary(run))
for figure in sorted((run.root / "figures").glob("*.png")):
    display(Image(str(figure)))"""


def select_files(parameters: Mapping[str, Any]) -> dict[str, Path]:
    """Return the parameters that name files of this machine, and the files; these go into the data set.

    Args:
        parameters: Values by parameter name.

    Returns:
        Paths by parameter name.

    Raises:
        KaggleError: A folder, an archive or a model is named, or two files of one name.
    """
    here = {name: Path(str(parameters[name])) for name in (*_FILES, "MODEL") if parameters.get(name)}
    files = {name: path for name, path in here.items() if path.exists()}
    for name, path in files.items():
        if name == "MODEL" or path.is_dir() or path.suffix.lower() in _ARCHIVES:
            raise KaggleError(
                f"{name} must be a single file that is no archive to go into the data set, got {path}: make a Kaggle "
                f"{'model' if name == 'MODEL' else 'data set'} of it, add that to kaggle-metadata.json, and give -p "
                f"{name} its place below /kaggle/input"
            )
    if len({path.name for path in files.values()}) < len({path.resolve() for path in files.values()}):
        told = ", ".join(map(str, files.values()))
        raise KaggleError(f"files that go into the data set must have names of their own, got {told}: rename one")
    return files


def build_kernel_notebook(
    folder: Path, name: str, parameters: Mapping[str, Any], files: Mapping[str, Path], data_set: str
) -> dict[str, Any]:
    """Return the notebook of a kernel as JSON.

    Args:
        folder: Where the committed notebooks lie.
        name: A stage, or RUN_ALL.
        parameters: The values it gets; of RUN_ALL, those of all stages.
        files: As select_files returns them.
        data_set: The id of the data set that holds the files.
    """
    attached = {one: path.name for one, path in files.items() if one in parameters}
    slug = data_set.partition("/")[2]
    if name == RUN_ALL:
        return _build_run_all(read_json(folder / f"{next(iter(STAGES))}.ipynb"), parameters, attached, slug)
    notebook = read_json(folder / f"{name}.ipynb")
    cells = []
    for cell in notebook["cells"]:
        kept = {**cell, "outputs": [], "execution_count": None} if cell["cell_type"] == "code" else cell
        if _is_parameters(cell):
            cells += [{**kept, "source": set_parameters("".join(cell["source"]), parameters)}]
            cells += _build_search(attached, slug, "{}")
        else:
            cells.append(kept)
    return {**notebook, "cells": cells}


def set_parameters(source: str, parameters: Mapping[str, Any]) -> str:
    """Return the text of a cell of parameters with the given values in place of the defaults."""
    for name, value in parameters.items():
        pattern = rf"(?m)^({re.escape(name)}: \w+ = ).*?(  #.*)?$"
        source = re.sub(pattern, lambda line, value=value: f"{line[1]}{value!r}{line[2] or ''}", source, count=1)
    return source


def _build_run_all(
    first: Mapping[str, Any], parameters: Mapping[str, Any], attached: Mapping[str, str], slug: str
) -> dict[str, Any]:
    """Return a notebook that sets up as the first of the series does, and runs them all."""
    setup = next(cell for cell in first["cells"] if cell["cell_type"] == "code" and not _is_parameters(cell))
    values = f"PARAMETERS = {dict(parameters)!r}  # of the notebooks, by name, such as N_EVAL or DATA"
    search = _build_search(attached, slug, 'PARAMETERS["{}"]')
    cells = [
        {"cell_type": "markdown", "id": "title", "metadata": {}, "source": _TITLE},
        *[_build_code("parameters", values), *search, _build_code("set-up", "".join(setup["source"]))],
        _build_code("run", _RUN),
    ]
    return {**first, "cells": cells}


def _build_search(attached: Mapping[str, str], slug: str, target: str) -> list[dict[str, Any]]:
    """Return a cell that finds files in the attached data set, wherever Kaggle mounts it; none without files."""
    if not attached:
        return []
    lines = ["from pathlib import Path", "", "# in the attached data set, wherever Kaggle mounts it"]
    for name, file in attached.items():
        pattern = re.sub(r"([*?[])", r"[\1]", f"{slug}/{file}")
        lines.append(f'{target.format(name)} = str(next(Path("/kaggle/input").rglob({pattern!r})))')
    return [_build_code("attached-files", "\n".join(lines))]


def _build_code(name: str, source: str) -> dict[str, Any]:
    fixed = {"cell_type": "code", "id": name, "metadata": {}, "source": source}
    return {**fixed, "outputs": [], "execution_count": None}


def _is_parameters(cell: Mapping[str, Any]) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])
