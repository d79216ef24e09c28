"""The commands on models: trained ones, and those on the disk."""
