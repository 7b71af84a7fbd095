"""From files to batches: what every data set is (`items`), the kinds there are, and the loader.

`opening.open_source` looks at a folder and hands out a `Source`: `manifest` (anyone's own data), `rope`, `lpr4m`, or
`rendered` (cut-outs that `cope.render` draws as they are asked for). The first three lie behind an index on disk
(`indexing`, `store`). `loader` chooses (`sampling`), reads, decodes and crops (`transforms`) in processes of its own.
"""
