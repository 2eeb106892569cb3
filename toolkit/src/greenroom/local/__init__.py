"""Serving on one machine, with no cluster: the real runtime as a process, planned as the operator plans."""
