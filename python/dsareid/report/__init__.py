"""The report of a run: one self-contained HTML page."""

from dsareid.report.page import write_report
from dsareid.report.results import Results, group_results

__all__ = ["Results", "group_results", "write_report"]
