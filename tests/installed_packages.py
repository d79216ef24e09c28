"""Packages with entry points, as somebody else would write and install them."""

import textwrap


def install(folder, package, source, group, entry_points):
    """Install a package into a folder for modules.

    Args:
        folder: The folder.
        package: Name of the package and of its one module.
        source: Text of the module.
        group: Group of its entry points.
        entry_points: Lines of that group.
    """
    information = folder / f"{package}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{group}]\n{entry_points}\n")
    (folder / f"{package}.py").write_text(textwrap.dedent(source))
