"""The fixtures of this folder."""

from tests.docker.engines import engine, engine_folder, gpu_engine, gpu_place, place, root_file_system

__all__ = [
    "engine",
    "engine_folder",
    "gpu_engine",
    "gpu_place",
    "place",
    "root_file_system",
]
