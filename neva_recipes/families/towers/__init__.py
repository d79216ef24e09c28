"""The families of vision towers, each declared in a file."""
