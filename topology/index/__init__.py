"""The catalogue index: page vectors, searched by picture and by word, grouped by product.

Library code that `catalog` and `recognize` share, without a role of its own. Callers see
`Index` and its three implementations through `open_index`:

| class | engine | used |
|---|---|---|
| `MemoryIndex` | exact numpy | tests: the twin that the others must agree with |
| `EdgeIndex` | Qdrant's engine in this process (Qdrant Edge) | default; a recognize worker fills its own |
| `ServerIndex` | a Qdrant server or cluster | when `COPE_QDRANT_URL` is set; the catalog role fills it |
"""

from topology.index.base import Candidate, Index, PageEntry, Query
from topology.index.memory import MemoryIndex
from topology.index.opening import open_index, open_server_to_fill

__all__ = ["Candidate", "Index", "MemoryIndex", "PageEntry", "Query", "open_index", "open_server_to_fill"]
