"""The subcommands of ``sam2-ros``, one module each."""
