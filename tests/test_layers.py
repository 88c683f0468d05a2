"""The house: which rooms there are, who may import whom, and that the core loads without the heavy libraries."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fgtools"

ROOMS = (
    *("files", "gguf", "profiles", "calls", "schema", "metrics", "gold", "rows"),
    *("models", "prompts", "generate", "train", "serve", "report", "run"),
    "__main__",
)
"""From the bottom up: a room imports only from rooms before it."""

CORE = ROOMS[: ROOMS.index("models")]

LOADED_BY_PATH = {"metrics.function_calls"}
"""Files that another library loads by their path: they may use every room, and no module imports them."""

OFFLINE_DOORS = {"rows.sources", "models.load"}
"""The only modules that know the offline room; it knows calls, files and profiles alone."""

HEAVY = {
    "torch",
    "datasketch",
    "transformers",
    "trl",
    "datasets",
    "numpy",
    "scipy",
    "matplotlib",
    "pandas",
    "papermill",
}

AGAINST: set[tuple[str, str]] = set()
"""Imports against the direction that are still to be cured; the list only gets shorter."""


def list_modules() -> dict[str, Path]:
    """Every module by its dotted name below fgtools, such as "rows.build"; a room's own file is its name alone."""
    modules = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        modules[name] = path
    return modules


MODULES = list_modules()


def imported_modules(path: Path) -> set[str]:
    """Every fgtools module that a file imports, at the top or inside functions, by its dotted name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").partition(".")[0] == "fgtools":
            base = (node.module or "").removeprefix("fgtools").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(".")
                found.add(inner if inner in MODULES else base)
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("fgtools.") for alias in node.names if alias.name.startswith("fgtools.")}
    return found


def room_of(module: str) -> str:
    return module.partition(".")[0]


def public_files(room: str) -> set[str]:
    """What a room's __init__ names: its public names, and the files that other rooms may import from."""
    path = PACKAGE / room / "__init__.py"
    if not path.exists():
        return set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def test_the_house_has_these_rooms_and_no_others():
    shown = {path.stem for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "__init__.py", "py.typed")}
    assert shown == {*ROOMS, "offline"}
    assert len(shown - {"__main__"}) <= 17


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_a_module_imports_only_from_rooms_before_its_own(module):
    if room_of(module) == "offline" or module in LOADED_BY_PATH:
        return
    for used in imported_modules(MODULES[module]) - {""}:
        assert used not in LOADED_BY_PATH, f"{module} must not import {used}: another library loads it"
        if room_of(used) == "offline":
            assert module in OFFLINE_DOORS, f"{module} must not open the offline room"
        elif (module, used) not in AGAINST:
            places = ROOMS.index(room_of(used)), ROOMS.index(room_of(module))
            assert places[0] <= places[1], f"{module} must not import {used}: its room comes later"


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_files_of_a_room_are_private_unless_its_init_names_them(module):
    for used in imported_modules(MODULES[module]):
        room, _, file = used.partition(".")
        if file and room not in (room_of(module), "offline"):
            assert file in public_files(room), (
                f"{module} imports {used}, which fgtools/{room}/__init__.py does not name"
            )


def test_the_offline_room_knows_calls_files_and_profiles_alone():
    known = {"offline", "calls", "files", "profiles"}
    for module, path in MODULES.items():
        if room_of(module) == "offline":
            assert {room_of(used) for used in imported_modules(path)} <= known, module


def test_the_list_of_imports_against_the_direction_is_true():
    assert all(used in imported_modules(MODULES[module]) for module, used in AGAINST)


def test_the_core_loads_without_heavy_libraries():
    core = ", ".join(f"fgtools.{module}" for module in set(MODULES) - LOADED_BY_PATH if room_of(module) in CORE)
    check = f"import sys, {core}; print(sorted({HEAVY!r} & set(sys.modules)))"
    outcome = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "[]"


def test_a_session_can_start_before_torch_and_what_is_missing_on_kaggle():
    absent = {"torch", "datasketch", "rapidfuzz", "trl", "evaluate", "jiwer"}
    check = f"import sys; from fgtools.run import session; print(sorted({absent!r} & set(sys.modules)))"
    outcome = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "[]"


def test_no_file_and_no_function_is_longer_than_a_reader_can_hold():
    for module, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, f"{module} has more than 400 lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < 60, f"{module}.{node.name} has more than 60 lines"


def test_the_readme_draws_the_house_as_it_stands():
    drawn = re.findall(
        r"^  (\w+)(?:/|\.py)  ", (PACKAGE.parent / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    places = [ROOMS.index(room) for room in drawn if room in ROOMS]
    assert sorted(drawn) == sorted({*ROOMS, "offline"}) and places == sorted(places)
