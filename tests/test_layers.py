"""The layers: a module imports only what stands before it, and the core loads without the heavy libraries."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "fgtools"

LAYERS = (
    (
        *("calls", "profiles", "literals", "typewords", "specs", "containers", "parameters", "tutorial", "pythonic"),
        *("schema", "names", "duplicates", "declarations", "batches"),
        *("intervals", "cer", "ast_match", "behaviours", "outcomes", "scores", "breakdowns", "comparison", "metrics"),
        *("tables", "alignment", "artifacts"),
    ),
    ("shapes", "blocks", "gold", "keys", "splits", "packed", "rows", "rowfiles", "remedies", "fitting"),
    (
        *(
            "progress",
            "launch",
            "session",
            "login",
            "offline",
            "datafiles",
            "sources",
            "prompts",
            "encoder",
            "coverage",
        ),
        *("models", "slab", "constraint", "generate", "replies", "style", "curves", "precision", "memory", "labelled"),
        *("callbacks", "checkpoints"),
        *("adapters", "trainer", "engine", "train"),
    ),
    (
        *("preparation", "checks", "audit", "report", "readings", "card", "figures", "publish"),
        *("stages", "training", "protocol", "playground", "widgets"),
        "pipeline",
        "__main__",
    ),
)
"""Lowest first; within a layer, too, a module imports only from those before it: so there is no cycle."""

ORDER = [module for layer in LAYERS for module in layer]
HEAVY = {"torch", "datasketch", "transformers", "trl", "datasets", "numpy", "matplotlib", "pandas", "papermill"}


def imported_modules(path: Path) -> set[str]:
    """Every fgtools module a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fgtools"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fgtools.")}
    return found


def test_every_module_has_its_place():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} | {"offline"}
    assert modules == set(ORDER)


def test_a_module_imports_only_from_before_it():
    for module in set(ORDER) - {"offline"}:
        for used in imported_modules(PACKAGE / f"{module}.py"):
            assert ORDER.index(used) < ORDER.index(module), f"{module} must not import {used}"


def test_the_offline_room_has_two_doors():
    for path in (PACKAGE / "offline").glob("*.py"):
        allowed = {"offline", "calls", "profiles"}
        assert imported_modules(path) <= allowed, f"offline/{path.name} knows more than calls and profiles"
    users = {module for module in set(ORDER) - {"offline"} if "offline" in imported_modules(PACKAGE / f"{module}.py")}
    assert users <= {"sources", "models"}


def test_the_core_loads_without_heavy_libraries():
    core = ", ".join(f"fgtools.{module}" for layer in LAYERS[:2] for module in layer)
    check = f"import sys, {core}; print(sorted({HEAVY!r} & set(sys.modules)))"
    outcome = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "[]"
