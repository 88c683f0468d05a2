"""The pictures of notebooks that the README shows: what the committed ones look like in JupyterLab.

`python docs/screenshots.py` writes docs/02_data.png, 04_train.png and 05_post_eval.png anew; with a folder it draws all
six there, in JupyterLab's light and dark style, to be looked at. It needs nbconvert and a Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

DOCS = Path(__file__).parent
NOTEBOOKS = DOCS.parent / "notebooks"
SHOWN = ("02_data", "04_train", "05_post_eval")
"""The notebooks that the README shows."""

WIDTH = 1100
HIGHEST = 16_000
"""Pixels of a page; Chromium draws none that is much higher."""


def draw_notebook(notebook: Path, picture: Path, theme: str = "light") -> None:
    """Write a notebook's page as a PNG.

    Args:
        notebook: The notebook, with its outputs.
        picture: Where the picture goes.
        theme: "light" or "dark".
    """
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(theme=theme).from_filename(str(notebook))
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("a Chromium must be installed: apt install chromium")
    with tempfile.TemporaryDirectory() as folder:
        html, raw = Path(folder, "page.html"), Path(folder, "page.png")
        html.write_text(page, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--screenshot={raw}"]
        words = [browser, *options, f"--window-size={WIDTH},{HIGHEST}", html.as_uri()]
        subprocess.run(words, check=True, capture_output=True, timeout=300)
        image = Image.open(raw).convert("RGB")
    empty = Image.new("RGB", image.size, image.getpixel((0, image.height - 1)))
    bottom = ImageChops.difference(image, empty).getbbox()[3]
    image.crop((0, 0, WIDTH, min(image.height, bottom + 30))).quantize(64).save(picture, optimize=True)


def main() -> None:
    """Draw the pictures of the README, or all notebooks in both styles into a folder."""
    if len(sys.argv) < 2:
        for name in SHOWN:
            draw_notebook(NOTEBOOKS / f"{name}.ipynb", DOCS / f"{name}.png")
        return
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        for theme in ("light", "dark"):
            draw_notebook(notebook, folder / f"{notebook.stem}.{theme}.png", theme)


if __name__ == "__main__":
    main()
