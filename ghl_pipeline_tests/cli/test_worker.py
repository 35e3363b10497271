"""`ghl-pipeline worker`: what it says when it cannot start. That it works: `deploy/test_two_hosts.py`."""

import pytest

from ghl_pipeline_tests.cli.conftest import Cli


def test_without_a_queue_it_says_what_to_set(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    ended = cli("worker")
    assert ended.code == 3
    assert "CELERY_BROKER_URL is not set" in ended.err


def test_a_check_without_a_worker_fails_without_a_word_of_the_url(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:zyxwinda-s3cret@127.0.0.1:9/0")
    ended = cli("worker", "--check")
    assert ended.code == 1
    assert "s3cret" not in ended.out + ended.err
