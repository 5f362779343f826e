"""Where a study is kept: Optuna's storage, shared by the processes that work on it and by those that go on after a
kill."""

import time

import optuna
import sqlalchemy
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy.exc import SQLAlchemyError

from .search_space import SearchError


def open_storage(url: str, heartbeat: int) -> RDBStorage:
    """Optuna's storage at ``url``, its tables made if need be. Raises `SearchError` when it cannot be opened."""
    for attempt in range(5):
        try:
            return RDBStorage(
                url, heartbeat_interval=heartbeat, grace_period=3 * heartbeat,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )  # fmt: skip
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            failure = (
                error  # perhaps another process was making the tables at the same moment: they are there next time
            )
            time.sleep(0.2 * (attempt + 1))
        except (ImportError, ValueError) as error:
            failure = error
            break
    reason = str(failure).strip().splitlines()[0]
    raise SearchError(
        f"--storage {shown(url)}: cannot be opened ({reason}); give a URL that Optuna takes, such as sqlite:///study.db"
    )


def shown(url: str) -> str:
    """``url`` without its password."""
    try:
        return sqlalchemy.make_url(url).render_as_string()
    except SQLAlchemyError:
        return url
