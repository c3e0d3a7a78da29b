"""The ledger as a file: charged before it runs, whatever fails, is killed, is torn, is forked or moved."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from assess.assess_harness import Counting, Failing, Killing, in_fork
from vambrace.core import files
from vambrace.errors import ConfigError, ResourceError
from vambrace.privacy.dp.charges import Charge, Spent
from vambrace.privacy.dp.history import Terms, parse, sealed
from vambrace.privacy.dp.ledger import Ledger

TERMS = Terms(dataset_size=60000, delta=1e-5, unit="sample", relation="add_or_remove_one", sampler="poisson")
ONE = Charge(mechanism="gaussian", noise_multiplier=1.1, sampling="poisson", sample_rate=0.01)
TWO = Charge(mechanism="laplace", noise_multiplier=2.0, sampling="full", sample_rate=1.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "ledger"


def test_it_goes_on_where_it_was(path: Path) -> None:
    with Ledger.create(path, TERMS) as ledger:
        assert (ledger.steps, ledger.position, ledger.spent) == (0, 0, Spent())
        ledger.reserve(ONE, 100)
        ledger.settle(40)
        ledger.reserve(TWO, 1)
        head = ledger.head
    with Ledger.open(path) as ledger:
        assert ledger.head == head
        assert ledger.history.terms == TERMS
        ledger.reserve(TWO, 2)
        assert ledger.spent == Spent([(ONE, 100), (TWO, 3)])
        assert (ledger.steps, ledger.position) == (103, 4)
    assert parse(path.read_bytes()).spent == ledger.spent
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["ledger", "ledger.lock"]


def test_it_is_on_the_disk_before_it_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger.create(path, TERMS) as ledger:
        monkeypatch.setattr(files, "system", counting := Counting())
        ledger.reserve(ONE, 10)
        assert counting.calls == ["write", "fsync"]
        assert parse(path.read_bytes()).steps == 10


def test_what_ran_less_is_not_given_back_and_what_ran_more_is_charged(path: Path) -> None:
    with Ledger.create(path, TERMS) as ledger:
        with pytest.raises(ConfigError, match="E585: no block to settle"):
            ledger.settle(0)
        ledger.reserve(ONE, 10)
        ledger.settle(0)
        assert ledger.steps == 10
        with pytest.raises(ConfigError, match="E585: no block to settle"):
            ledger.settle(0)
        ledger.reserve(TWO, 10)
        with pytest.raises(ConfigError, match="E585: 12 steps ran where 10 were reserved"):
            ledger.settle(12)
        assert ledger.spent == Spent([(ONE, 10), (TWO, 12)])
        with pytest.raises(ConfigError, match="E103"):
            ledger.settle(-1)
    with Ledger.open(path) as ledger:  # nobody knows what a process that ended has run
        with pytest.raises(ConfigError, match="E585: no block to settle"):
            ledger.settle(2)
        assert ledger.steps == 22


@pytest.mark.parametrize("steps", [0, -1, 1.5, True, np.int64(3), 2**54])
def test_steps_that_cannot_be_counted_write_nothing(path: Path, steps: int) -> None:
    with Ledger.create(path, TERMS) as ledger:
        before = path.read_bytes()
        with pytest.raises(ConfigError):
            ledger.reserve(ONE, steps)
        assert path.read_bytes() == before
        ledger.reserve(ONE, 1)


def test_numbers_of_numpy_are_charged_as_what_they_are(path: Path) -> None:
    charge = Charge(
        mechanism="gaussian", noise_multiplier=np.float64(1.1), sampling="poisson", sample_rate=np.float64(1 / 3)
    )
    with Ledger.create(path, TERMS) as ledger:
        ledger.reserve(charge, 1)
        ((read, _),) = ledger.spent
        assert read == charge
        assert type(read.noise_multiplier) is float


def test_a_charge_of_wrong_types_writes_nothing(path: Path) -> None:
    odd = Charge(mechanism="gaussian", noise_multiplier=1.1, sampling="poisson", sample_rate=True)
    with Ledger.create(path, TERMS) as ledger:
        before = path.read_bytes()
        with pytest.raises(ConfigError):
            ledger.reserve(odd, 1)
        assert path.read_bytes() == before


# Whom it serves.


def test_one_holder_at_a_time(path: Path) -> None:
    ledger = Ledger.create(path, TERMS)
    for again in (lambda: Ledger.open(path), lambda: Ledger.create(path, TERMS)):
        with pytest.raises(ResourceError, match=f"E600.*process {os.getpid()}") as caught:
            again()
        assert str(path) in caught.value.seen
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(ResourceError, match="E600"):
        Ledger.open(link)
    ledger.close()
    ledger.close()
    with pytest.raises(ConfigError, match="E585.*closed"):
        ledger.reserve(ONE, 1)
    with Ledger.open(link), pytest.raises(ResourceError, match="E600"):
        Ledger.open(path)


def test_a_forked_process_may_not_write_and_ends_nothing(path: Path) -> None:
    with Ledger.create(path, TERMS) as ledger:
        ledger.reserve(ONE, 1)

        def child() -> int:
            for forbidden in (lambda: ledger.reserve(ONE, 1), lambda: ledger.settle(1)):
                with pytest.raises(ConfigError, match="E585.*forked"):
                    forbidden()
            ledger.close()
            with pytest.raises(ResourceError, match="E600"):
                Ledger.open(path)
            return 7

        assert in_fork(child) == 7
        with pytest.raises(ResourceError, match="E600"):
            Ledger.open(path)
        ledger.reserve(ONE, 1)
        assert parse(path.read_bytes()).steps == 2


def test_it_needs_no_torch(path: Path) -> None:
    code = "import sys; from vambrace.privacy.dp import ledger; assert 'torch' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


# What is refused.


def test_a_ledger_that_is_not_there_leaves_no_lock(path: Path) -> None:
    with pytest.raises(ConfigError, match="E585: no ledger at"):
        Ledger.open(path)
    assert not path.parent.exists()


def test_a_ledger_is_never_begun_over_another(path: Path) -> None:
    Ledger.create(path, TERMS).close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="E585.*there already"):
        Ledger.create(path, TERMS)
    assert path.read_bytes() == before
    Ledger.open(path).close()  # and no lock was kept


def test_damage_is_refused_and_left_as_it_is(path: Path) -> None:
    with Ledger.create(path, TERMS) as ledger:
        ledger.reserve(ONE, 100)
    data = path.read_bytes().replace(b'"steps":100', b'"steps":10')
    path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"E585: line 2 of {path} does not match its hash"):
            Ledger.open(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("how", ["removed", "replaced", "replaced and written to", "cut", "written to"])
def test_a_ledger_that_is_taken_away_charges_nothing_that_may_run(path: Path, how: str) -> None:
    with Ledger.create(path, TERMS) as ledger:
        ledger.reserve(ONE, 100)
        data = path.read_bytes()
        if how == "removed":
            path.unlink()
        elif how == "replaced":
            files.write_file(path, data)
        elif how == "replaced and written to":  # by as many bytes as are to be written
            record = {"kind": "charged", "charge": ONE.as_json(), "first": 100, "steps": 1}
            files.write_file(path, data + sealed(record, ledger.head) + b"\n")
        else:
            path.write_bytes(data[:-1] if how == "cut" else data + b"\n")
        with pytest.raises(ConfigError, match="E585.*moved, replaced or written to"):
            ledger.reserve(ONE, 1)
        with pytest.raises(ConfigError, match="E585.*closed, or a write to it interrupted"):
            ledger.reserve(ONE, 1)
        assert ledger.steps == 100


# What fails.


def run_steps(ledger: Ledger, ran: Path, blocks: int, pause: float = 0.0) -> None:
    """Training: reserve, and only then run; a byte for every step, which survives the process."""
    with ran.open("ab", buffering=0) as counter:
        for _ in range(blocks):
            ledger.reserve(ONE, 5)
            for _ in range(5):
                counter.write(b".")
                time.sleep(pause)


def began(path: Path) -> Ledger:
    return Ledger.open(path) if path.exists() else Ledger.create(path, TERMS)


def check_ledger(path: Path, ran: Path, most: int) -> None:
    """Every step that ran is charged, and at most `most` that did not."""
    done = ran.stat().st_size if ran.exists() else 0
    if not path.exists():
        assert done == 0
        return
    with Ledger.open(path) as ledger:
        assert done <= ledger.steps <= done + most
        assert ledger.spent == Spent([(ONE, ledger.steps)])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("forever", [False, True])
def test_every_call_fails_once_or_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, forever: bool
) -> None:
    real = files.system

    class Broken(Failing):
        def _call(self, call: str, fd: int = -1, data: bytes = b"") -> None:
            super()._call(call, fd, data)
            if forever and len(self.calls) > self.at:
                self.act(call, fd, data)

    failed: list[str] = []
    for at in range(1, 100):
        path, ran = tmp_path / str(at) / "ledger", tmp_path / f"ran-{at}"
        monkeypatch.setattr(files, "system", shim := Broken(at, code))
        held: list[Ledger] = []
        try:
            held.append(Ledger.create(path, TERMS))
            run_steps(held[0], ran, 3)
        except ResourceError as error:
            assert error.code == "E601"  # noqa: PT017
            assert errno.errorcode[code] in error.seen  # noqa: PT017
            failed.append(shim.calls[at - 1])
        monkeypatch.setattr(files, "system", real)
        if held and not forever:
            run_steps(held[0], ran, 1)  # the same ledger goes on when there is room again
        for ledger in held:
            ledger.close()
        check_ledger(path, ran, most=5 if forever else 0)
        run_steps(began(path), ran, 1)
        if len(shim.calls) < at:
            break
    assert set(failed) == {"mkdir", "write", "fsync", "replace ledger"}


def test_the_recovery_may_fail_too(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger.create(path, TERMS) as ledger:
        ledger.reserve(ONE, 5)
        ledger.reserve(ONE, 5)
    whole, real = path.read_bytes(), files.system
    for cut in (1, 30):
        for at in range(1, 10):
            path.write_bytes(whole[:-cut])
            monkeypatch.setattr(files, "system", shim := Failing(at))
            try:
                Ledger.open(path).close()
            except ResourceError:
                assert len(shim.calls) >= at
            monkeypatch.setattr(files, "system", real)
            with Ledger.open(path) as ledger:
                assert ledger.steps == (10 if cut == 1 else 5)
            assert path.read_bytes() == (whole if cut == 1 else whole[: ledger.history.keep])
            if len(shim.calls) < at:
                break
        else:
            raise AssertionError("it never got through")


def test_an_interrupted_write_stops_the_ledger(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting(files.System):
        def fsync(self, fd: int) -> None:
            super().fsync(fd)
            raise KeyboardInterrupt

    ledger = Ledger.create(path, TERMS)
    with monkeypatch.context() as patch:
        patch.setattr(files, "system", Interrupting())
        with pytest.raises(KeyboardInterrupt):
            ledger.reserve(ONE, 5)
    with pytest.raises(ConfigError, match="E585.*interrupted"):
        ledger.reserve(TWO, 5)
    ledger.close()
    with Ledger.open(path) as ledger:
        assert ledger.spent == Spent([(ONE, 5)])


def test_killed_in_every_call(tmp_path: Path) -> None:
    for at in range(1, 100):
        path, ran = tmp_path / str(at) / "ledger", tmp_path / f"ran-{at}"

        def work(at: int = at, path: Path = path, ran: Path = ran) -> int:
            files.system = Killing(at)
            run_steps(began(path), ran, 3)
            return 0

        killed = in_fork(work) == -signal.SIGKILL
        check_ledger(path, ran, most=5)
        run_steps(began(path), ran, 1)
        if not killed:
            assert at > 10
            return
    raise AssertionError("it never got through")


def kill_at_random_instants(path: Path, ran: Path, kills: int) -> None:
    """One ledger goes on over all of them; what ran is counted apart."""
    for number in range(kills):
        pid = os.fork()
        if pid == 0:
            try:
                run_steps(began(path), ran, 10**6, pause=0.0002)
            finally:
                os._exit(1)
        time.sleep(random.uniform(0.002, 0.08))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        check_ledger(path, ran, most=5 * (number + 1))
    assert ran.stat().st_size > kills


def test_killed_20_times_at_random_instants(path: Path, tmp_path: Path) -> None:
    random.seed(4)
    kill_at_random_instants(path, tmp_path / "ran", 20)


@pytest.mark.slow
def test_killed_300_times_at_random_instants(path: Path, tmp_path: Path) -> None:
    random.seed(5)
    kill_at_random_instants(path, tmp_path / "ran", 300)


class LedgerMachine(RuleBasedStateMachine):
    """Reserving, failing, crashing with a torn tail, going on: against a count of what ran."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "ledger"
        self.ran: list[tuple[Charge, int]] = []  # reserved durably, and run
        self.lost = 0  # steps that a crash may have charged and not run
        self.ledger: Ledger | None = None

    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger.create(self.path, TERMS)

    @precondition(lambda self: self.ledger)
    @rule(charge=st.sampled_from([ONE, TWO]), steps=st.integers(1, 9))
    def reserve(self, charge: Charge, steps: int) -> None:
        assert self.ledger
        self.ledger.reserve(charge, steps)
        self.ran.append((charge, steps))

    @precondition(lambda self: self.ledger)
    @rule(used=st.integers(0, 9))
    def settle(self, used: int) -> None:
        assert self.ledger
        block = self.ledger.history.blocks[-1] if self.ledger.history.blocks else None
        if block is None or block.used is not None:
            return
        try:
            self.ledger.settle(min(used, block.steps))
        except ConfigError as error:
            assert "no block to settle" in error.seen  # noqa: PT017  it was reserved by a process that ended

    @precondition(lambda self: self.ledger)
    @rule(steps=st.integers(1, 9), at=st.integers(1, 2))
    def reserve_fails(self, steps: int, at: int) -> None:
        assert self.ledger
        real, files.system = files.system, Failing(at)
        try:
            with pytest.raises(ResourceError, match="E601"):
                self.ledger.reserve(ONE, steps)
        finally:
            files.system = real

    @precondition(lambda self: self.ledger)
    @rule(charge=st.sampled_from([ONE, TWO]), steps=st.integers(1, 9), share=st.floats(0, 1))
    def crash(self, charge: Charge, steps: int, share: float) -> None:
        """The process dies in the append of a block: some of its bytes are there, none of its steps ran."""
        assert self.ledger
        record = {"kind": "charged", "charge": charge.as_json(), "first": self.ledger.steps, "steps": steps}
        line = sealed(record, self.ledger.head) + b"\n"
        size = round(share * len(line))
        self.ledger.close()
        self.ledger = None
        with self.path.open("ab") as file:
            file.write(line[:size])
        if size >= len(line) - 1:
            self.ran.append((charge, steps))  # over-charged: that it did not run cannot be seen

    @precondition(lambda self: self.ledger is None)
    @rule()
    def resume(self) -> None:
        self.ledger = Ledger.open(self.path)
        assert self.path.read_bytes().endswith(b"\n")

    @precondition(lambda self: self.ledger is None)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        """Any byte of any whole line is changed: refused, until it is mended."""
        whole = self.path.read_bytes()
        end = whole.rfind(b"\n")
        place = data.draw(st.integers(0, end))
        changed = bytearray(whole)
        changed[place] ^= data.draw(st.integers(1, 255))
        # A torn tail behind a changed line feed is the same damage.
        self.path.write_bytes(changed)
        with pytest.raises(ConfigError, match="E585"):
            Ledger.open(self.path)
        self.path.write_bytes(whole)

    @invariant()
    def all_that_ran_is_charged_and_nothing_else(self) -> None:
        if self.path.exists():
            assert parse(self.path.read_bytes()).spent == Spent(self.ran)
        if self.ledger:
            assert self.ledger.spent == Spent(self.ran)
            assert self.ledger.history.keep == self.path.stat().st_size

    def teardown(self) -> None:
        if self.ledger:
            self.ledger.close()
        shutil.rmtree(self.folder)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


@pytest.mark.slow
def test_ledger_machine_at_length() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(LedgerMachine, settings=settings(max_examples=300, stateful_step_count=30, deadline=None))
