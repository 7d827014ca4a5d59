"""The report of a run: one self-contained HTML page."""

from dsareid.report.page import write_report
from dsareid.report.runfiles import read_run

__all__ = ["read_run", "write_report"]
