"""Publishing a run's model: on the Hugging Face hub or on Kaggle Models, or only said what would happen.

Knows what must hold before anything is sent; what leaves is `publish_plan`, how it is sent `hub_upload` and
`kaggle_models`. Nothing is written beside the model, which may lie in a read-only input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fgtools.run.card_facts import collect_facts
from fgtools.run.folder import RunFolder
from fgtools.run.hub import measure_content
from fgtools.run.hub_upload import plan_for_hub, upload_to_hub
from fgtools.run.kaggle_models import plan_for_kaggle, upload_to_kaggle
from fgtools.run.publish_plan import PublishPlan, collect_files, describe_quotes, plan_changes
from fgtools.run.settings import load_settings
from fgtools.run.uploads import PublishError

MIN_WEIGHTS = 100_000_000
"""Bytes of the smallest weights that are published; those of the stand-in have less."""

NAME_FORMS = {"hub": "owner/name", "kaggle": "owner/model/framework/variation"}
"""Where a model can be published, and the form of a name there."""


def build_card(run: RunFolder, repo_id: str = "", languages: Sequence[str] = ()) -> str:
    """Return the card of a run's model as notebook 6 writes it.

    Args:
        run: The run, after notebook 5.
        repo_id: Where the model will lie; "" while no name is chosen.
        languages: Of the requests, as ISO 639 codes such as "en"; none: those of a known data set.

    Raises:
        MissingArtifactError: A file of the run is not there; the message names the notebook that makes it.
    """
    from fgtools.report.card import render_card
    from fgtools.serve import load_taught_tools
    from fgtools.serve.usage import choose_example, render_usage

    rows = [*run.read_rows("rows.eval.jsonl"), *run.read_rows("rows.train.jsonl")]
    example = choose_example(rows, load_taught_tools(run.find("model")))
    program = render_usage(repo_id or "model", example.tools, example.request)
    banner = load_settings(run).banner
    return render_card(collect_facts(run, languages), repo_id=repo_id, banner=banner, usage=program)


def publish_model(
    run: RunFolder,
    card: str,
    repo_id: str = "",
    target: str = "hub",
    dry_run: bool = True,
    private: bool = True,
    replace_files: bool = False,
) -> PublishPlan:
    """Publish a run's tuned model with its card and scores, or say what would be published.

    What is there already is compared first. On the hub everything is done in one commit, which also removes weights,
    settings and scores that an older upload left and the new one does not bring.

    Args:
        run: The run, whose files may lie in read-only inputs.
        card: Text of README.md, the model card.
        repo_id: On the hub "owner/name", on Kaggle "owner/model/framework/variation"; may be empty in a dry run.
        target: "hub" for the Hugging Face hub, "kaggle" for Kaggle Models.
        dry_run: Whether only to say what would happen; with a `repo_id` the hub is asked what is there.
        private: Whether the model is to be seen by its owner alone. It decides for a new repository. One that is public
            is not filled with a model that is to be private; one that is private stays so.
        replace_files: Whether files that are there may be replaced or removed.

    Returns:
        The PublishPlan.

    Raises:
        PublishError: The folder is incomplete, holds the stand-in, repo_id is malformed, something would be replaced
            without leave, or the service refuses.
    """
    if target not in NAME_FORMS:
        raise PublishError(f"TARGET must be one of {', '.join(NAME_FORMS)}, got {target!r}")
    form, parts = NAME_FORMS[target], repo_id.split("/")
    if (repo_id or not dry_run) and not (len(parts) == len(form.split("/")) and all(parts)):
        raise PublishError(f"REPO_ID must be {form!r} for the target {target!r}, got {repo_id!r}")
    contents, left_out = collect_files(run, card)
    if not dry_run and measure_content(contents["model.safetensors"]) < MIN_WEIGHTS:
        raise PublishError(
            "the offline stand-in is a toy and is not published: train FunctionGemma itself (PROFILE 'kaggle')"
        )
    plan = replace(plan_changes(contents, None), left_out=left_out, repo_id=repo_id, target=target)
    plan = replace(plan, notes=describe_quotes(contents))
    if target == "kaggle":
        plan = plan_for_kaggle(plan, private)
        return plan if dry_run else upload_to_kaggle(plan, contents)
    if dry_run and not repo_id:
        return plan
    return plan_for_hub(plan, contents, private) if dry_run else upload_to_hub(plan, contents, private, replace_files)
