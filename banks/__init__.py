"""Recipes: one TOML file per built-in bank, read without importing torch."""
