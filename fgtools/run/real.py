"""The series on real weights and real rows: what it runs on, with which numbers, and how long about.

Knows the rows that come with the package (real_rows.md says where they are from), the numbers that make the series fit
half an hour of two CPU cores, and the folder of Gemma 3 270M; how that is fetched stands in `weights`.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgtools.profiles import REAL_NUMBERS
from fgtools.run.notebooks import NOTEBOOKS, PACKAGE, select_stages
from fgtools.run.parameters import list_parameters
from fgtools.run.weights import fetch_real_model

REAL_ROWS = Path(__file__).with_name("real_rows.jsonl.gz")
PROVENANCE = REAL_ROWS.with_name("real_rows.md")
TRAINING_MINUTES = 5  # of one pass over the package's rows on two cores: docs/real.md
SCRATCH = (Path() if NOTEBOOKS.is_relative_to(PACKAGE) else NOTEBOOKS.parent) / "build" / "real"
"""Where the model is fetched to and built: in a clone beside the package; run from a wheel, in the current folder."""


def prepare_real_run(given: Mapping[str, Any], only: Sequence[str] = (), scratch: Path = SCRATCH) -> dict[str, Any]:
    """Return the parameters of the notebooks for a run on Gemma 3 270M, once its folder is there; print the plan.

    Args:
        given: Parameters that were given by name. They hold; with DATA of one's own, the numbers for the package's rows
            do not.
        only: Stages to run, as for run_series; a number that none of them takes is left out.
        scratch: Where the model is fetched to and built.

    Returns:
        The given parameters, MODEL and the others that were not given.

    Raises:
        WeightsError: As fetch_real_model.
        PipelineError: A stage is unknown.
    """
    known = {name for stage in select_stages(only) for name in list_parameters(NOTEBOOKS / f"{stage}.ipynb")}
    own_data = bool(given.get("DATA"))
    numbers = {} if own_data else {"DATA": str(REAL_ROWS), **REAL_NUMBERS}
    numbers |= {"MODEL": str(fetch_real_model(scratch))}
    asked = {name: value for name, value in given.items() if name != "MODEL"}
    print(render_plan({**numbers, **asked}, own_data), flush=True)
    return {name: value for name, value in numbers.items() if name in known} | asked


def count_real_rows() -> dict[str, int]:
    """Return how many of the package's rows are on each side of the split."""
    with gzip.open(REAL_ROWS, "rt", encoding="utf-8") as file:
        return dict(Counter(json.loads(line)["split"] for line in file))


def render_plan(parameters: Mapping[str, Any], own_data: bool) -> str:
    """Return what will run and how long it takes about, as text.

    Args:
        parameters: Of the notebooks.
        own_data: Whether the rows are the user's.
    """
    if own_data:
        return f"plan: the six notebooks on {parameters['DATA']}; notebook 4 measures how long the training takes"
    sides, passes = count_real_rows(), float(parameters["EPOCHS"])
    replies, rows = sides["eval"] + sides["unseen"], sides["train"]
    return "\n".join(
        [
            f"plan: the six notebooks on {sum(sides.values())} real rows ({PROVENANCE.name}); times are estimates for "
            "two CPU cores, a GPU takes less",
            f"  3 baseline    about 4 min   {replies} replies, {sides['unseen']} of them to tools that are kept apart",
            f"  4 training    about {TRAINING_MINUTES * passes:.0f} min  passes over {rows} rows: {passes:g}; measured "
            "anew before it starts",
            f"  5 evaluation  about 3 min   the same {replies} replies by the tuned model",
            "  1, 2 and 6    about 2 min   set-up, data, model card",
            *(["N_TOTAL takes fewer rows, so all of it is shorter"] if parameters.get("N_TOTAL") else []),
            "shorter: -p EPOCHS 1",
        ]
    )
