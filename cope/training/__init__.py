"""How COPE learns. `trainer` runs stages; a `Stage` is made by `frozen` (kept tower features) or `pixels` (all else).

`objective` joins `losses` and `product_softmax`. `features` and `texts` keep what frozen towers saw and read;
`checkpoint`, `run_record` and `log` are what a run leaves behind.
"""
