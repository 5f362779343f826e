"""Puts a folder on the Hub: checked first, one commit, private unless asked otherwise."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from .check import check_folder


class PublishError(RuntimeError):
    """A folder or a Hub that refuses; the message says what to do."""


def list_files(folder: str | Path) -> list[tuple[str, int]]:
    """(relative name, bytes) of everything that would be sent."""
    folder = Path(folder)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    return [(str(path.relative_to(folder)), path.stat().st_size) for path in files]


def publish(
    folder: str | Path,
    repo_id: str,
    public: bool = False,
    message: str = "Publish FinMatryoshka",
    api: HfApi | None = None,
) -> str:
    """Check ``folder`` and send all of it to ``repo_id`` in one commit; returns the commit's address.

    The token is the Hub client's own (``HF_TOKEN`` or its login) and is never printed. What fails before the commit leaves
    the repository's content as it was, and the call can be repeated.

    Raises:
        PublishError: with the list of what is wrong, or what the Hub answered.
    """
    problems = check_folder(folder)
    if problems:
        raise PublishError(f"{folder} is not fit to publish:\n" + "\n".join(f"  - {problem}" for problem in problems))
    api = api or HfApi()
    try:
        api.create_repo(repo_id, private=not public, exist_ok=True)
        names = [name for name, _ in list_files(folder)]
        stale = set(api.list_repo_files(repo_id)) - {*names, ".gitattributes"}
        # create_commit rather than upload_folder, which may split a large folder into several commits
        operations = [CommitOperationAdd(name, str(Path(folder) / name)) for name in names]
        operations += [CommitOperationDelete(name) for name in sorted(stale)]
        commit = api.create_commit(repo_id, operations, commit_message=message)
    except LocalTokenNotFoundError:
        raise PublishError(f"{repo_id}: no Hub token; set HF_TOKEN or run `hf auth login`") from None
    except Exception as error:
        # a file's upload that fails comes wrapped, with what happened as its cause; the HTTP library differs by the client's version
        raise PublishError(f"{repo_id}: {_what_to_do(error)}") from error
    return commit.commit_url


_ADVICE = {
    401: "the token is missing or wrong; set HF_TOKEN or run `hf auth login`",
    403: "the token may not write there; use one with write access",
    404: "no such namespace, or the token cannot see it",
    409: "somebody else is changing the repository; publish again",
}


def _what_to_do(error: Exception) -> str:
    error = error if isinstance(error, HfHubHTTPError) or error.__cause__ is None else error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status:
        return f"the Hub answered {status}: {_ADVICE.get(status, 'nothing was published; publish again')}"
    return f"the connection broke ({type(error).__name__}); nothing was published; publish again"
