"""The formats of an exported model, a module each: its writer, its reader and a record of both.

`formats.table` lists them.
"""
