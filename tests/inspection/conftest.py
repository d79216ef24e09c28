"""Recipes that are looked at from an empty folder, so that paths and findings do not depend on where tests run."""

import pytest


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current directory: empty, and named in a way that needs quoting."""
    path = tmp_path / "it's a folder"
    path.mkdir()
    monkeypatch.chdir(path)
    return path
