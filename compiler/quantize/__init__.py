"""From a float network to one of 8-bit integers, by what a few samples show of it.

:func:`.quantize.quantize` takes a graph as a front end reads it and arrays of samples. It makes the
graph simple (:mod:`.fold`), decides what becomes integers (:mod:`.plan`), watches the values of
every tensor on the samples and chooses their ranges (:mod:`.observers`), puts QuantizeLinear and
DequantizeLinear into the graph (:mod:`.insert`), corrects biases (:mod:`.correct`) and measures
what was lost (:mod:`.noise`). Nothing is trained.
"""

from .noise import Noise
from .observers import Method
from .quantize import Layer, Options, Quantized, quantize

__all__ = ["Layer", "Method", "Noise", "Options", "Quantized", "quantize"]
