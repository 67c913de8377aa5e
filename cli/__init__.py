"""The command line: Typer, one module per noun; what the commands do is in the package."""
