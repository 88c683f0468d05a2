"""The one place a Hugging Face token is looked for: the environment, then Kaggle's Secrets, else no login.

Knows where tokens are kept, not what they are for. A token is passed to huggingface_hub alone: it is never printed,
written to a file of a run, or part of an error.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

VARIABLES = ("HUGGINGFACE_TOKEN", "HF_TOKEN")
SECRET = "HUGGINGFACE_TOKEN"


@dataclass(frozen=True)
class Login:
    """How the login went.

    Attributes:
        logged_in: Whether the hub accepted a token.
        message: What that means, for people.
    """

    logged_in: bool
    message: str


def log_in() -> Login:
    """Log in to the Hugging Face hub if a token can be found.

    Returns:
        The Login; a missing or refused token is no error.
    """
    token, source = _find_token()
    if not token:
        return Login(
            False,
            f"no login: {source}. Public models and data work; gated models of the hub and publishing need the secret "
            f"{SECRET}.",
        )
    import huggingface_hub
    from huggingface_hub.errors import HTTPError

    try:
        huggingface_hub.login(token=token, add_to_git_credential=False)
    except (OSError, ValueError, HTTPError) as error:
        reason = type(error).__name__  # its text may quote the token
        return Login(False, f"no login: the hub did not accept the token from {source} ({reason}). Going on without.")
    return Login(True, f"logged in to the Hugging Face hub with the token from {source}")


def _find_token() -> tuple[str, str]:
    """Return the token and where it was found, or "" and why there is none."""
    for name in VARIABLES:
        if token := os.environ.get(name, "").strip():
            return token, f"the environment variable {name}"
    try:
        from kaggle_secrets import UserSecretsClient
    except ImportError:
        return "", f"{SECRET} is not set"
    try:
        token = UserSecretsClient().get_secret(SECRET)
    except Exception as error:
        return "", f"Kaggle's Secrets gave no {SECRET} ({type(error).__name__})"
    return (token or "").strip(), "Kaggle's Secrets" if token else f"{SECRET} is empty in Kaggle's Secrets"
