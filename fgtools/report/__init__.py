"""Report: what people look at: tables, figures, widgets and the model card.

Knows scores, rows and pandas; each file is loaded when it is asked for, since figures and widgets are slow to load.
"""

__all__ = [
    "card",
    "card_licence",
    "data_tables",
    "examples",
    "figures",
    "layout",
    "live",
    "tables",
    "widgets",
]
