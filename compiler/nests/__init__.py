"""The loop nests of operators, by kind; :mod:`weft.compiler.operators` is their face."""
