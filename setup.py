"""What the program reads beside its code goes into the wheel, in a folder of the package; all else about it is in setup.cfg."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = {"configs": ("**/*",), "traces": ("**/*",), "experiments": ("**/sweep.yaml", "**/README.md")}
"""Folders of the repository, and which of their files are shipped; figures of experiments are drawn when they run."""


class BuildWithShippedFiles(build_py):
    """Copies them; an editable installation finds them where they are."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for folder, patterns in SHIPPED.items():
            found = (file for pattern in patterns for file in Path(folder).glob(pattern))
            for source in sorted(file for file in found if file.is_file()):
                target = Path(self.build_lib, "neupims_sim", "shipped", source)
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target))


setup(cmdclass={"build_py": BuildWithShippedFiles})
