"""The actions of `nemo-run data`."""
