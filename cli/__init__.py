"""The command line: Typer, one module per noun, no logic of its own."""
