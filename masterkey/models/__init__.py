"""Architectures that timm lacks, registered with it when their module is imported."""
