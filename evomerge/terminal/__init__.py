"""What a person at a terminal sees: progress while it works, tables when it is done."""

from evomerge.terminal.preflight import plan_text
from evomerge.terminal.progress import Ticker, console
from evomerge.terminal.tables import csv_lines, results_tables, scores_table, show
from evomerge.terminal.units import duration

__all__ = ["Ticker", "console", "csv_lines", "duration", "plan_text", "results_tables", "scores_table", "show"]
