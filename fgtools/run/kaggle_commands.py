"""What `python -m fgtools kaggle ACTION` does: prints what was built, pushed, found or downloaded.

Knows the parts of the Kaggle commands and how they are told; not how options are declared.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from fgtools.run.kaggle_metadata import RUN_ALL


def build(options: Namespace) -> None:
    """Build the folders and print what lies where, what is missing, and what comes next."""
    from fgtools.run.kaggle_build import DATA_SET, build_kaggle
    from fgtools.run.kaggle_push import describe_manual_steps

    out = Path(options.out)
    built = build_kaggle(out, options.user, dict(options.p))
    for name, kernel in built.kernels.items():
        print(f"{out / name}  {kernel}")
    print(f"{out / DATA_SET}  {built.data_set}")
    for name in built.sha256:
        size = (out / DATA_SET / name).stat().st_size
        print(f"  {name}  {size / 1e6:.2f} MB")
    if built.parameters:
        print("parameters:", ", ".join(f"{name} = {value!r}" for name, value in built.parameters.items()))
    for wheel in built.missing:
        print(f"missing: {wheel.requirement} for Python {wheel.python} ({wheel.reason})")
    if built.missing:
        print(f"{len(built.missing)} wheels are missing: the kernels install them from the internet, or build again")
    print(describe_manual_steps(built))
    print(f"next: python -m fgtools kaggle push --out {out}, or with --only {RUN_ALL} for one session")


def push(options: Namespace) -> None:
    """Push data set and kernels, and wait for each."""
    from fgtools.run.kaggle_build import load_build
    from fgtools.run.kaggle_push import connect, describe_manual_steps, push_series

    out = Path(options.out)
    print(describe_manual_steps(load_build(out)), flush=True)
    push_series(connect(), out, options.only, with_data_set=not options.no_data_set)
    print(f"all completed; to fetch what they wrote: python -m fgtools kaggle output --out {out}")


def status(options: Namespace) -> None:
    """Print what Kaggle says of each kernel."""
    from fgtools.run.kaggle_build import load_build
    from fgtools.run.kaggle_push import connect, describe_status

    load_build(Path(options.out))  # a wrong folder is told before the login
    print(describe_status(connect(), Path(options.out), options.only))


def output(options: Namespace) -> None:
    """Download what the kernels wrote."""
    from fgtools.run.kaggle_build import load_build
    from fgtools.run.kaggle_push import connect, fetch_outputs

    out = Path(options.out)
    load_build(out)
    for name, count in fetch_outputs(connect(), out, options.only).items():
        print(f"{out / 'output' / name}  {count} files")
