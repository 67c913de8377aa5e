"""Pretrained depthwise filter banks, put frozen into any timm network in one line."""
