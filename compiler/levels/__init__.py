"""Texts of the pipeline's levels: any of them can be printed, read back, and gone on from.

::

    weft schedule 1                       which level, and the version of these texts
    network "digits"                      the header: a key and its value in JSON a line
    ...
    == hardware                           sections under headings
    block = 4
    == layer conv1
    use ["loadx.inp", ...]
    ...

* ``graph``: the network as it was read (:mod:`weft.compiler.graph_text`);
* ``nests``: and for each node the loop nest that says what it computes;
* ``schedule``: which node runs where; for those on the accelerator the nest that instructions
  match, which instructions, how it is cut. What was found by searching stands there, and is proven
  again when it is read;
* ``stream``: instructions, constants and places in DRAM.

Everything is in one file, so that a mail or a bug report can carry it: constants stand in their
sections, short ones as numbers, longer ones as base64. A line that starts with ``#`` means nothing.
What is malformed is a :class:`~weft.isa.errors.ModelError` with the number of the line.
"""

from .text import FORMAT, format_module, is_level, parse_module

__all__ = ["FORMAT", "format_module", "is_level", "parse_module"]
