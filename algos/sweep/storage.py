"""Where a shared study is: an Optuna journal on a folder that all workers see, or a PostgreSQL database.

    /shared/lr.journal                            a file, also on NFS
    postgresql://user@host/database#lr            a database, and the name of the study in it

The study's attribute `sweep` says what is swept, and has a digest of it. It is written last: whoever can read it finds
every choice in the queue.
"""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from algos.integrity import sealed, unsealed
from algos.sweep.extras import needs
from algos.sweep.lanes import group
from algos.sweep.proposals import distributions, labelled, propose
from algos.sweep.study import Study, study_from
from mec_jax.files import check_file, did_you_mean, reason

__all__ = ["LEASE", "TRIAL", "Address", "create", "opened"]

LEASE = 120.0
"""Seconds of silence after which a worker counts as gone."""
NAME = "mec-jax"
"""Of a study, if nobody says."""
TRIAL = "trial"
"""Attribute of a trial: which choice it tries. Optuna's own number is another one when it is taken up again."""
SWEEP = "sweep"
CONNECT = 10  # seconds
_DRIVER = "postgresql+psycopg"
_START = b'{"op_code":'  # of a journal


class Address(NamedTuple):
    """Where a study is."""

    place: str  # a file, or a database's URL without the name of the study
    name: str  # of the study
    is_file: bool

    def __str__(self) -> str:
        """As a command line has it, but for a password."""
        if self.is_file:
            return self.place
        place = needs("sqlalchemy", "a study in a database").make_url(self.place).render_as_string()
        return f"{place}#{self.name}"

    @classmethod
    def of(cls, text: str) -> "Address":
        """What a text says.

        Raises:
            ValueError: If it is a database other than PostgreSQL, or what that needs is not installed.
        """
        needs("optuna", "a shared study")
        if "://" not in text:
            return cls(str(Path(text).absolute()), NAME, True)
        alchemy = needs("sqlalchemy", "a study in a database")
        place, _, name = text.partition("#")
        try:
            url = alchemy.make_url(place)
        except (alchemy.exc.ArgumentError, ValueError):
            raise ValueError("no URL of a database: write postgresql://USER@HOST/DATABASE#STUDY") from None
        if url.get_backend_name() != "postgresql":
            raise ValueError(
                f"{url.drivername} can't be shared: give a journal's file, or postgresql://USER@HOST/DATABASE#STUDY"
            )
        needs("psycopg", "a study in PostgreSQL")
        return cls(place, name or NAME, False)


class Opened(NamedTuple):
    """A study."""

    optuna: Any  # the study as Optuna has it
    study: Study
    lease: float  # seconds of silence after which a worker counts as gone


@contextlib.contextmanager
def reaching(address: Address) -> Iterator[None]:
    """What a storage raises, as one error that says how to go on."""
    optuna, alchemy = needs("optuna", "a shared study"), needs("sqlalchemy", "a shared study")
    try:
        yield
    except optuna.exceptions.UpdateFinishedTrialError:
        raise
    except json.JSONDecodeError as error:
        raise ValueError(f"{address} is damaged ({reason(error)}): take a copy of it, or sweep anew") from None
    except (
        *(OSError, RuntimeError, KeyError),  # a lock that others broke; a study that is gone
        *(optuna.exceptions.StorageInternalError, alchemy.exc.SQLAlchemyError),
    ) as error:
        cause = error.__cause__ or error
        raise ValueError(
            f"the study {address} can't be reached ({reason(getattr(cause, 'orig', None) or cause)}): mend that, and "
            f"join again"
        ) from None


def _storage(address: Address) -> Any:
    storages = needs("optuna", "a shared study").storages
    if not address.is_file:
        url = needs("sqlalchemy", "a study in a database").make_url(address.place).set(drivername=_DRIVER)
        settings = {"pool_pre_ping": True, "connect_args": {"connect_timeout": CONNECT}}
        return storages.RDBStorage(url.render_as_string(hide_password=False), settings)
    backend = storages.journal.JournalFileBackend(address.place, _lock(address.place))
    try:
        return storages.JournalStorage(backend)
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise ValueError(f"{address} is no journal of Optuna, or damaged ({reason(error)}): name another") from None


def _lock(file: str) -> Any:
    """The lock of a journal that NFS keeps (version 3 and later)."""
    journal = needs("optuna", "a shared study").storages.journal

    class Lock(journal.JournalFileOpenLock):  # type: ignore[name-defined]
        """Whoever gets it takes away what a worker that was killed left of a line."""

        def acquire(self) -> bool:
            super().acquire()
            try:
                _mend(file)
            except BaseException:
                self.release()
                raise
            return True

    return Lock(file)


def _mend(file: str) -> None:
    with open(file, "rb+") as lines:
        end = lines.seek(0, os.SEEK_END)
        start = end
        while start:  # of what comes after the last end of a line
            step = min(start, 4096)
            lines.seek(start - step)
            whole = lines.read(step).rfind(b"\n") + 1
            start += whole - step
            if whole:
                break
        if start < end:
            lines.truncate(start)


def _check_journal(address: Address) -> None:
    """Whatever else the file is stays as it is."""
    with open(address.place, "rb") as file:
        start = file.read(len(_START))
    if not _START.startswith(start) and not start.startswith(_START):
        raise ValueError(f"{address} is no journal of Optuna: name another file")


def create(address: Address, study: Study, lease: float = LEASE) -> None:
    """Make a study with all its choices in the queue; nothing is run. Where it is already, it stays.

    Args:
        address: Where.
        study: What is swept.
        lease: Seconds of silence after which a worker counts as gone.

    Raises:
        ValueError: If another sweep is there, or the storage can't be reached.
    """
    if not (math.isfinite(lease) and lease > 0):
        raise ValueError(f"a lease of {lease:g} s is none: give a few beats of the slowest worker, such as {LEASE:g}")
    if study.schedule != "full":
        raise ValueError(f"the schedule {study.schedule} is of one process: a shared study runs each choice to its end")
    optuna = needs("optuna", "a shared study")
    if address.is_file and Path(check_file(address.place, "journal")).exists():
        _check_journal(address)
    with reaching(address):
        storage = _storage(address)
        try:
            made = optuna.create_study(storage=storage, study_name=address.name, direction="maximize")
        except optuna.exceptions.DuplicatedStudyError:
            there = _read(address, optuna.load_study(study_name=address.name, storage=storage)).study
            if other := [
                name for name, value in study.fields().items() if name != "asked" and value != there.fields()[name]
            ]:
                raise ValueError(
                    f"{address} holds a sweep with another {', '.join(other)}: name another, or leave out what differs"
                ) from None
            return
        made.add_trials(_queue(study))
        fields = {"version": metadata.version("mec-jax"), "lease": lease, "study": study.fields()}
        made.set_user_attr(SWEEP, sealed(fields))


def _queue(study: Study) -> list[Any]:
    """Every choice as a trial that waits; what learns chooses when they are taken."""
    optuna = needs("optuna", "a shared study")
    waiting, known = optuna.trial.TrialState.WAITING, distributions(study.space)
    if study.sampler == "tpe":
        return [optuna.create_trial(state=waiting, user_attrs={TRIAL: trial}) for trial in range(study.choices)]
    choices = propose(study.sampler, study.space, study.base.seed, [], study.choices)
    groups = [group(study.run(choice, 0, study.base.seed)) for choice in choices]
    return [
        optuna.create_trial(
            state=waiting,
            params=labelled(study.space, choices[trial]),
            distributions=known,
            user_attrs={TRIAL: trial},
        )
        for trial in sorted(range(study.choices), key=lambda trial: groups[trial])  # a worker compiles few programs
    ]


def opened(address: Address) -> Opened:
    """A study that is there.

    Raises:
        ValueError: If there is none, it is damaged or of another version of mec_jax, or the storage can't be reached.
    """
    optuna = needs("optuna", "a shared study")
    with reaching(address):
        if address.is_file:
            if not Path(address.place).is_file():
                raise ValueError(f"there is no study {address}: `mec-jax sweep ... --study {address}` makes one")
            _check_journal(address)
        storage = _storage(address)
        # Asks that nobody has told yet count as bad ones: workers spread. Each draws anew, as it knows of others.
        sampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=True)
        names = optuna.get_all_study_names(storage)
        if address.name not in names:
            there = f"it holds {', '.join(names)}" if names else "it holds none"
            raise ValueError(
                f"there is no study {address.name!r} in {address}: {did_you_mean(address.name, names)}{there}"
            )
        return _read(address, optuna.load_study(study_name=address.name, storage=storage, sampler=sampler))


def _read(address: Address, study: Any) -> Opened:
    text = study.user_attrs.get(SWEEP)
    if text is None:
        raise ValueError(
            f"the study {address} holds no sweep, or one that is still being made: wait for that, or name another"
        )
    try:
        fields, is_sealed = unsealed(text)
        if not is_sealed:
            raise ValueError("it has no digest")
        theirs, ours = fields["version"], metadata.version("mec-jax")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(address, error) from None
    if theirs != ours:
        raise ValueError(f"the study {address} is of mec-jax {theirs}, this is {ours}: install that one, or sweep anew")
    try:
        return Opened(study, study_from(fields["study"]), float(fields["lease"]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(address, error) from None


def _damaged(address: Address, error: Exception) -> ValueError:
    return ValueError(f"the study {address} is damaged ({reason(error)}): sweep anew")
