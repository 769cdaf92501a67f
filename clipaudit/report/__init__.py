"""The report: an audit as one HTML file that a team can open, mail and act upon.

from clipaudit.report import write_report

write_report(clipaudit.read_index("clean.parquet"), "report.html")
"""

from __future__ import annotations

from clipaudit.report.writing import ReportSummary, write_report

__all__ = ["ReportSummary", "write_report"]
