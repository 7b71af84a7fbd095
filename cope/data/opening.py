"""Opens a data set, of whichever kind it is."""

from cope.data import lpr4m, manifest, rendered, rope
from cope.data.files import Folder
from cope.data.items import Source
from cope.data.store import StoredSource
from cope.domains import Split
from cope.errors import UserError


def open_source(data: str, split: Split = "train", crossing: bool = True) -> Source:
    """Opens a data set by what lies in its folder.

    | found | reader |
    |---|---|
    | `objects.jsonl` | `cope.data.rendered`: cut-outs that are rendered on the fly |
    | `manifest*.jsonl`, or the name of such a file | `cope.data.manifest` |
    | any of ROPE's nine files | `cope.data.rope` |
    | `*.tsv` | `cope.data.lpr4m` |

    Args:
        data: A local folder, or an fsspec URL of one (s3://..., memory://...).
        split: The side of the split; no product lies on two.
        crossing: Whether some product must have items in two domains: without one there is nothing to learn.

    Raises:
        UserError: The folder is none of these, a part of it is missing or empty, or no product is in two domains.
    """
    folder = Folder(data)
    for reader in (rendered, manifest, rope, lpr4m):
        if reader.is_here(folder):
            source: Source = reader.open_folder(folder, split)
            if crossing and isinstance(source, StoredSource) and not source.crosses():
                raise UserError(
                    f"{folder.url}: no product on the {split} side has items in two domains, so there is nothing to "
                    f"learn or find across them; check that the domains name products alike ({source.counts})"
                )
            return source
    raise folder.unknown()
