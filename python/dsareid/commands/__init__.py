"""The commands of `dsareid`, a module each; a module is loaded when its command is called.

A module holds either `command`, the function that tyro makes a command line of, or `build`, which makes
that function for the arguments at hand.
"""
