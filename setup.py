"""What pyproject.toml cannot say: the wheel holds the notebooks, whose only source is the folder notebooks/."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

NOTEBOOKS = sorted(Path(__file__).with_name("notebooks").glob("*.ipynb"))


class BuildWithNotebooks(build_py):
    """Copies the notebooks to fgtools/notebooks in the wheel; an editable install finds them where they are."""

    def run(self) -> None:
        """Build as setuptools does, then copy."""
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "fgtools", "notebooks")
            self.mkpath(str(folder))
            for notebook in NOTEBOOKS:
                self.copy_file(str(notebook), str(folder / notebook.name))


setup(cmdclass={"build_py": BuildWithNotebooks})
