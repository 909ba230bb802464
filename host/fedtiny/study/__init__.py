"""Studies: a grid of runs, the same data, models and accounting for every method, and tables of what came of it."""

from fedtiny.study.plan import Cell, Study, read_study
from fedtiny.study.report import write_study_report
from fedtiny.study.runner import run_study

__all__ = ["Cell", "Study", "read_study", "run_study", "write_study_report"]
