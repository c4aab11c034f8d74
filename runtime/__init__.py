"""Compiling networks for a device and running them there: the only room that knows both.

Names are imported when they are first used, so that ``import weft`` stays quick.
"""
