"""Scripts that measure the software and the banks, and keep what was recorded; in the repository, not in the wheel."""
