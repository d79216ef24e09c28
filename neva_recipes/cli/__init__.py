"""The `nemo-run` command. It never imports torch; what needs torch is imported by the subcommand that uses it."""
