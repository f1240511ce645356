"""What architectures are made of: one idea a file, each alternative a plugin.

Shapes in docstrings and comments:

====  ==================================================================
s     sequence: tokens of a sample (under sequence parallelism, this rank's share outside attention and MLP)
b     batch: samples of a micro-batch
h     hidden: width of the residual stream
n     query heads on this rank
g     key and value heads on this rank (n unless queries are grouped)
d     features of one head
m     width of the MLP on this rank
v     vocabulary rows on this rank: the padded vocabulary / t
t     tensor ranks, over which each layer is split
====  ==================================================================

Activations run as [s, b, h]: the sequence comes first, so that sequence parallelism splits contiguous memory.
"""
