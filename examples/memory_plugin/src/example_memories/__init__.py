"""Two memories for neupims_sim: ``ddr3``, a table, and ``cxl``, a Python model."""
