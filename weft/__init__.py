"""Weft: a tensor accelerator and its compiler, designed together."""
