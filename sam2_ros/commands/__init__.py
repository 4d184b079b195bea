"""What `sam2-ros NAME` runs: one module per command, each with `configure(parser)` and `run(args)`."""
