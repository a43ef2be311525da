"""What a person looks at."""

from evomerge.report.page import write_report

__all__ = ["write_report"]
