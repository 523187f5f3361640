"""Hostile input, and what the program makes of it: ``make fuzz``; its short form is ``tests/test_fuzz.py``.

A case is a call of the program. Its outcome has to be ``fine``, or ``refused``: exit code 2 and one line of printable text.
"""
