"""Benchmarks: scripts whose recorded results back every figure in README."""
