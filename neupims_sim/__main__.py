"""``python -m neupims_sim`` is the program ``neupims-sim``."""

from neupims_sim.cli import main

main()
