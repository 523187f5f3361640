"""Devices joined: links and collectives, pipelines of micro-batches, and the GPU as a roofline."""
