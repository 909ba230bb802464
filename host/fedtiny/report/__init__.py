"""What people read about a run: one page with charts, and a model card."""

from fedtiny.report.card import model_card
from fedtiny.report.page import write_report

__all__ = ["model_card", "write_report"]
