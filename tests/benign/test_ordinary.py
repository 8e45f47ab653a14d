"""Ordinary days of a notebook user, under the guard, in a home full of credentials: nothing to tell of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import attacks
from attacks.stage import about
from benign.cases import ALL, ORDINARY, Case
from benign.session import Session, hold
from kernel import aws
from live.account import Account
from live.agent import LiveAgent
from live.home import furnish
from live.programs import prepare, turn
from live.web import web_server
from live.work import Done, work

HOME = {
    ".aws/credentials": f"[default]\naws_access_key_id = {aws.KEY_ID}\naws_secret_access_key = {aws.SECRET_KEY}\n",
    ".aws/config": "[default]\nregion = eu-west-1\n",
    ".ssh/id_rsa": "no key\n",
    ".ssh/config": "Host gpu-host\n    HostName 192.0.2.7\n",
    ".netrc": "machine 127.0.0.1\nlogin me\npassword fake\n",
    ".git-credentials": "https://me:fake@git.example.com\n",
    ".cache/huggingface/token": "fake-token",
    ".kaggle/kaggle.json": "{}",
    ".pgpass": "localhost:5432:*:me:fake\n",
}

each_case = pytest.mark.parametrize("case", ORDINARY, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest, account: Account, folder: Path, agent: LiveAgent) -> Session:
    """All chosen cases, over."""
    home = folder / "agent"
    furnish(account, agent, home, HOME)
    (folder / "tools").mkdir()
    shutil.copy(Path(attacks.__path__[0]) / "aws", folder / "tools" / "ask.py")
    with web_server() as web, aws.endpoint() as cloud:
        variables = {**aws.environment(cloud), "WEB": web, "AWS": str(folder / "tools" / "ask.py"), "HOME": str(home)}

        def run(case: Case) -> Done:
            command = agent.guarded(prepare(account, folder / case.name, case.language, case.text))
            with turn(case.language):
                return work(account, folder / case.name, command, variables, case.expects)

        return hold(request, agent, ORDINARY, run)


@each_case
def test_case_is_real(case: Case, session: Session) -> None:
    """The work is done to the end, with exit code 0, under the guard."""
    done = session.of(case)
    assert done.done, done.said


@each_case
def test_ordinary_work_is_not_reported(case: Case, session: Session) -> None:
    """No finding from medium severity on names a process of ordinary work, nor takes it for the likeliest."""
    done = session.of(case)
    assert [finding for finding in session.findings if about(finding) & done.pids] == []


def test_enough_days() -> None:
    """There are at least 85 ordinary activities, each with a name of its own."""
    assert len({case.name for case in (*ALL, *ORDINARY)}) >= 85
