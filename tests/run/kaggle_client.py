"""Kaggle's client for tests: the real one with its requests intercepted, and a fake one that records."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import requests


def load_real_client(monkeypatch, home, user="ann"):
    """Return the real client as a user who is logged in, and the list of the requests it would have sent."""
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))  # no credentials of the machine
    monkeypatch.setattr("sys.argv", ["pytest"])
    from kaggle.api.kaggle_api_extended import KaggleApi
    from kagglesdk.datasets.types.dataset_api_service import ApiCreateDatasetResponse
    from kagglesdk.kernels.types.kernels_api_service import ApiSaveKernelResponse

    sent = []

    def answer(kind):
        def send(request):
            sent.append(request)
            return kind()

        return send

    services = SimpleNamespace(
        kernels=SimpleNamespace(kernels_api_client=SimpleNamespace(save_kernel=answer(ApiSaveKernelResponse))),
        datasets=SimpleNamespace(
            dataset_api_client=SimpleNamespace(
                create_dataset=answer(ApiCreateDatasetResponse), get_dataset_status=refuse(404)
            )
        ),
    )

    @contextmanager
    def build_client(*_):
        yield services

    client = KaggleApi()
    client.config_values = {"username": user, "key": "k"}
    monkeypatch.setattr(KaggleApi, "build_kaggle_client", build_client)
    return client, sent


def refuse(status):
    """Return a function that fails as the client does on an HTTP status."""

    def fail(*_, **__):
        answer = SimpleNamespace(status_code=status, text="", json=dict, headers={})
        raise requests.HTTPError(f"{status} at https://signed?token=secret", response=answer)

    return fail


class FakeClient:
    """Answers as Kaggle's client does, and records what it was asked; statuses and answers can be set by kernel."""

    def __init__(self, user="ann", version=0, statuses=None, answers=None):
        self.config_values = {"username": user}
        self.asked, self.version = [], version
        self.statuses = {name: list(values) for name, values in (statuses or {}).items()}
        self.answers = answers or {}

    def dataset_status(self, data_set, format):
        self.asked.append(("dataset_status", data_set))
        if not self.version:
            refuse(403)()
        return json.dumps({"status": "ready", "current_version_number": self.version})

    def dataset_create_new(self, folder, public, quiet):
        self.asked.append(("dataset_create_new", public))
        self.version = 1
        return SimpleNamespace(error=None, status="ok")

    def dataset_create_version(self, folder, notes, quiet):
        self.asked.append(("dataset_create_version", notes))
        self.version += 1
        return SimpleNamespace(error=None, status="ok")

    def kernels_push(self, folder):
        name = folder.rpartition("/")[2]
        self.asked.append(("kernels_push", name))
        given = {"error": None, "version_number": 3, "url": f"https://www.kaggle.com/code/ann/{name}"}
        return SimpleNamespace(**given | self.answers.get(name, {}))

    def kernels_status(self, kernel):
        self.asked.append(("kernels_status", kernel))
        left = self.statuses.get(kernel.split("/")[1], [])
        status, message = left.pop(0) if left else ("COMPLETE", None)
        return SimpleNamespace(status=SimpleNamespace(name=status), failure_message=message)

    def kernels_logs(self, kernel):
        return json.dumps([{"stream_name": "stderr", "data": "ValueError: rows are bad\n"}])

    def kernels_output(self, kernel, path, force, quiet):
        self.asked.append(("kernels_output", kernel))
        return [f"{path}/run/run.json", f"{path}/log"], ""
