"""One running installation for the whole folder, a client that counts, and who has proven which row.

After every test that used ``wire``: a request on a fresh connection is answered, no log holds
a traceback, nothing was answered as an error of ours, and the workers are the same processes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from crl_history import ALL, PARTITION, History, happened
from demo_service import Service, service_of
from installation_watch import OpenWire, Watch
from row_table import Proof
from served_installation import Served
from wire_client import Wire

FOLDER = Path(__file__).parent
_PROOF = pytest.StashKey[Proof]()
_WIRES = pytest.StashKey[list[Wire]]()
# 501 and 505 say what the client asked for that we do not do; the others that something is wrong here.
_OUR_FAULTS = frozenset({500, 502, 503, 504})
_INTERNAL_ERROR = bytes.fromhex("30030a0102")


# --- who proves what ---------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Keep the proof where hooks and the table's test find it."""
    config.stash[_PROOF] = Proof()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note which rows a test names, also where it is not selected."""
    if item.path.parent == FOLDER:
        for mark in item.iter_markers("row"):
            for row in mark.args:
                item.config.stash[_PROOF].claim(row, item.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the table's test behind all others, and find out whether it may judge."""
    last = [item for item in items if item.path == FOLDER / "test_table.py"]
    items[:] = [item for item in items if item not in last] + last
    proof = config.stash[_PROOF]
    selected = {item.path for item in items if item.path.parent == FOLDER}
    named = any("::" in word for word in config.args)
    proof.is_whole = not named and selected == set(FOLDER.glob("test_*.py"))


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Whoever leaves out a part of the folder proves nothing about the whole."""
    for item in items:
        if item.path.parent == FOLDER:
            item.config.stash[_PROOF].is_whole = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note a test that passed and exchanged octets; what comes to light after it counts too."""
    report = yield
    passed = item.config.stash[_PROOF].passed
    if call.when == "call" and report.passed:
        if any(wire.exchanged for wire in item.stash.get(_WIRES, [])):
            passed.add(item.nodeid)
    elif not report.passed:
        passed.discard(item.nodeid)
    return report


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> Proof:
    """What the tests before have proven."""
    return request.config.stash[_PROOF]


# --- the running installation ------------------------------------------------------------------------


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The installation that all share: both services, 100 demo certificates each, two workers.

    Issuing and revoking in it is allowed; whoever mistreats it makes one of their own.
    """
    installation = Served(tmp_path_factory.mktemp("served"))
    try:
        installation.run("init")
        installation.run("demo", "--population", "100")
        yield installation.serve()
    finally:
        installation.clean_up()


@pytest.fixture(scope="session")
def watches() -> dict[str, Watch]:
    """A watch for each installation by its address."""
    return {}


@pytest.fixture
def wires(request: pytest.FixtureRequest) -> list[Wire]:
    """The clients of a test, whose octets prove its rows."""
    made: list[Wire] = []
    request.node.stash[_WIRES] = made
    return made


@pytest.fixture
def open_wire(wires: list[Wire], watches: dict[str, Watch]) -> Iterator[OpenWire]:
    """Makes a counting client of any running installation, and looks after it when the test is over."""
    used: list[tuple[Watch, bool]] = []

    def make(installation: Served, *, same_workers: bool = True) -> Wire:
        watch = watches.get(installation.url)
        if watch is None:
            watch = watches[installation.url] = Watch(installation)
        used.append((watch, same_workers))
        wires.append(Wire(installation.url))
        return wires[-1]

    yield make
    for wire in wires:
        for reply in wire.replies:
            assert reply.status not in _OUR_FAULTS, reply.head
            assert reply.body != _INTERNAL_ERROR, reply.head
    for watch, same_workers in used:
        watch.check(same_workers=same_workers)


@pytest.fixture
def wire(open_wire: OpenWire, served: Served) -> Wire:
    """A counting client of the installation that all share."""
    return open_wire(served)


@pytest.fixture(scope="session")
def auth(served: Served) -> Service:
    """The AUTH service of the shared installation."""
    return service_of(served.state, "AUTH")


@pytest.fixture(scope="session")
def sign(served: Served) -> Service:
    """The SIGN service of the shared installation."""
    return service_of(served.state, "SIGN")


@pytest.fixture(scope="session", params=[ALL, PARTITION], ids=["whole", "partition"])
def history(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """An installation with an issuer that holds and releases, and a history of CRLs: of all that its key
    signed, and of one partition."""
    with happened(tmp_path_factory.mktemp("history"), request.param) as made:
        yield made


@pytest.fixture
def history_wire(open_wire: OpenWire, history: History) -> Wire:
    """A counting client of it."""
    return open_wire(history.installation)
