"""What is learned on top of the towers, and how a match is scored. Tensors in, tensors out.

`views` is its input, `modeling` the model, `integration` its transformers; `scoring` turns a window and a candidate
product into a calibrated probability.
"""
