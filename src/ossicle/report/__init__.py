"""Reports of metrics: lines for the terminal, plots, and a self-contained HTML page.

matplotlib is imported on first use, and only its object-oriented interface: no pyplot, no global state, thread-safe.
"""

from ossicle.report.figures import (
    confusion_figure,
    learning_curve_figure,
    per_class_figure,
    reliability_figure,
)
from ossicle.report.importance import importance_section
from ossicle.report.page import Chart, Section, Table, write_report
from ossicle.report.sampling import sampling_figure
from ossicle.report.sections import evaluation_sections, fold_section, sampling_section, training_section
from ossicle.report.style import png_bytes, save_figure
from ossicle.report.text import (
    aligned_lines,
    evaluation_lines,
    fold_lines,
    markdown_table,
    memory_text,
    number,
    throughput_text,
)
from ossicle.report.timeline import timeline_figure

__all__ = [
    "Chart",
    "Section",
    "Table",
    "aligned_lines",
    "confusion_figure",
    "evaluation_lines",
    "evaluation_sections",
    "fold_lines",
    "fold_section",
    "importance_section",
    "learning_curve_figure",
    "markdown_table",
    "memory_text",
    "number",
    "per_class_figure",
    "png_bytes",
    "reliability_figure",
    "sampling_figure",
    "sampling_section",
    "save_figure",
    "throughput_text",
    "timeline_figure",
    "training_section",
    "write_report",
]
