"""`python -m topology.schemas` writes the generated documents; `--check` only compares them."""

import sys

from topology.schemas.documents import documents


def main(arguments: list[str]) -> int:
    """Writes or checks the documents; returns the exit status."""
    stale = [path for path, text in documents().items() if not path.exists() or path.read_text() != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path} is not what the records say: run `python -m topology.schemas`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(documents()[path])
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
