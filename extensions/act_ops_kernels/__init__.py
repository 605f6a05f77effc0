"""Compiled operators of ACT; ``extensions.backends`` of the project loads them."""
