"""What pyproject.toml cannot express: conf/, scripts/ and templates/ are inside the package."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """In an editable installation they are found at the top of the checkout."""

    def run(self) -> None:
        """Copy the folders beside the modules."""
        super().run()
        if self.editable_mode:
            return
        paths = [*Path("conf").rglob("*.yaml"), *Path("scripts").glob("*.py")]
        paths += [path for path in Path("templates").rglob("*") if "__pycache__" not in path.parts]
        for path in filter(Path.is_file, paths):
            place = Path(self.build_lib, "convscape", path)
            self.mkpath(str(place.parent))
            self.copy_file(str(path), str(place))


setup(cmdclass={"build_py": BuildWithConfigs})
