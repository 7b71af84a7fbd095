"""Draws pages, short videos and live scenes from cut-outs, and writes what a host might say.

It knows pictures and random numbers, no data sets: `cope.data.rendered` makes a data set of it.
"""
