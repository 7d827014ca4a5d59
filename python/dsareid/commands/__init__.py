"""The commands of `dsareid`, a module each; a module is loaded when its command is called.

A module holds either `command`, a function whose parameters tyro turns into arguments and flags, or `build`,
which makes such a function for the given command line.
"""
