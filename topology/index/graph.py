"""How large catalogues are searched: a graph (HNSW) over short codes of vectors, whose best are compared in full.

The figures behind these numbers: `python -m benchmarks.index`, docs/design.md. A Qdrant server and the embedded engine
are given the same, but for the codes and how they are searched.
"""

# Neighbours of a point in the graph, and candidates while it is built.
M = 32
EF_CONSTRUCT = 200

# Segments below this, in kB, are searched without a graph.
FULL_SCAN_KB = 10_000
