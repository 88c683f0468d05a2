"""Run: the run folder, the stages, their notebooks and processes, the session they run in.

Its files are loaded when they are asked for: a session must begin before torch and missing packages are loaded.
"""

__all__ = [
    "commands",
    "draft_command",
    "evaluation",
    "exits",
    "export",
    "folder",
    "kaggle_build",
    "kaggle_commands",
    "kaggle_metadata",
    "kaggle_notebooks",
    "kaggle_push",
    "lock",
    "login",
    "notebooks",
    "options",
    "packages",
    "parameters",
    "processes",
    "progress",
    "publish",
    "real",
    "self_check",
    "session",
    "settings",
    "stages",
    "time_limit",
    "training",
    "weights",
]
