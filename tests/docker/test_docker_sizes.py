"""Sizes are what Docker's own command line takes them for, but for those without a unit, which would be bytes."""

import os
import shutil
import subprocess

import pytest

from executors.docker.container import bytes_of
from executors.docker.executor import DockerExecutor
from neva_recipes.config import RecipeError

NOBODY = "unix:///nobody/listens/here"
GIB = 2**30
BYTES = {
    "16g": 16 * GIB,
    "1G": GIB,
    "1gb": GIB,
    "1GiB": GIB,
    "1.5G": GIB * 3 // 2,
    "0.5t": 512 * GIB,
    "64M": 64 * 2**20,
    "300mb": 300 * 2**20,
    "2048K": 2**21,
    "65536b": 65536,
    "1P": 2**50,
}
WRONG = ("1x", "g", "1gg", "1gi", "1bb", "1,5g", "-1g", "", "1 000g", "1g ")


@pytest.fixture
def is_taken():
    """Return whether Docker's command line takes a size: it reads it before it looks for an engine."""
    if shutil.which("docker") is None and os.environ.get("REQUIRE_DOCKER") != "1":
        pytest.skip("Docker's command line is not here")

    def ask(option, size):
        words = ["docker", "--host", NOBODY, "create", f"--{option}={size}", "image"]
        return "invalid argument" not in subprocess.run(words, capture_output=True, text=True, check=False).stderr

    return ask


@pytest.mark.parametrize("size", BYTES)
def test_taken(is_taken, size):
    place = DockerExecutor(image="image", shm_size=size, memory=size)
    assert (place.shm_size, place.memory) == (size, size)
    assert is_taken("shm-size", size) and is_taken("memory", size)
    assert bytes_of(size) == BYTES[size]


@pytest.mark.parametrize("size", [*WRONG, "16", "0g", "0.0G"])
@pytest.mark.parametrize("field", ["shm_size", "memory"])
def test_refused(is_taken, field, size):
    said = "is empty: expected" if (field, size) == ("memory", "") else "expected"
    with pytest.raises(RecipeError, match=rf"^executor\.{field}='.*': {said} a size with its unit, such as 16g"):
        DockerExecutor(image="image", **{field: size})
    if size in WRONG:
        assert not is_taken(field.replace("_", "-"), size)
