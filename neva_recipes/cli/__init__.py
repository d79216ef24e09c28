"""The `nemo-run` command. It never imports torch; a subcommand imports what needs torch only when it uses it."""
