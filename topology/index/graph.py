"""How large catalogues are searched: a graph (HNSW) over vectors of 8 bits, whose best are compared once more in full.

The figures behind these numbers: `python -m benchmarks.index`, docs/design.md. A Qdrant server and the embedded engine
are given the same.
"""

# Neighbours of a point in the graph, and candidates while it is built.
M = 16
EF_CONSTRUCT = 100

# Candidates while it is searched.
EF = 256

# Segments below this, in kB, are searched without a graph.
FULL_SCAN_KB = 10_000

# Share of the values that the range of the 8 bits spans; the others are clipped.
QUANTILE = 0.99

# So many times the points that are wanted are compared in full.
OVERSAMPLING = 2.0
