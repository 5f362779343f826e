"""Puts a folder on the Hub: checked first, one commit, private unless asked otherwise, over nobody's files but its
own."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, RepositoryNotFoundError

from .check import SUMS, check_folder, file_sums, read_sums, sums_text
from .folder import FolderError

# What the client raises of the Hub and of the way there; its HTTP library differs by its version.
_HUB_ERRORS = (HfHubHTTPError, HfHubHTTPError.__bases__[0], ConnectionError)


class PublishError(FolderError):
    """A folder or a Hub that refuses; the message says what to do."""


def publish(
    folder: str | Path,
    repo_id: str,
    public: bool = False,
    message: str = "Publish FinMatryoshka",
    api: HfApi | None = None,
    overwrite: bool = False,
) -> str:
    """Check ``folder`` and send all of it to ``repo_id`` in one commit; returns the commit's address.

    ``SHA256SUMS`` goes with it and says which files are ours: the next call removes those of them that the folder no
    longer has, and nothing else. The token is the Hub client's own (``HF_TOKEN`` or its login) and is never printed.
    What fails before the commit leaves the repository's content as it was, and the call can be repeated.

    Args:
        public: Create the repository for everybody to see, or go on with one that already is.
        overwrite: Replace files of the same name that somebody else put there.

    Raises:
        PublishError: with the list of what is wrong, or what the Hub answered.
    """
    problems = check_folder(folder)
    if problems:
        raise PublishError(f"{folder} is not fit to publish:\n" + "\n".join(f"  - {problem}" for problem in problems))
    api = api or HfApi()
    try:
        remote = _remote_files(api, repo_id, public)
        sums = file_sums(Path(folder))
        ours = read_sums(_download(api, repo_id, SUMS)) if SUMS in remote else {}
        foreign = sorted(name for name in remote if name in sums and name not in ours)
        if foreign and not overwrite:
            raise PublishError(
                f"{repo_id}: holds files that publish did not write ({', '.join(foreign)}); name another repository, or "
                "pass --overwrite to replace them"
            )
        # create_commit rather than upload_folder, which may split a large folder into several commits
        operations = [CommitOperationAdd(name, str(Path(folder) / name)) for name in sums]
        operations.append(CommitOperationAdd(SUMS, sums_text(sums).encode()))
        operations += [CommitOperationDelete(name) for name in sorted((remote & ours.keys()) - sums.keys())]
        return api.create_commit(repo_id, operations, commit_message=message).commit_url
    except LocalTokenNotFoundError:
        raise PublishError(f"{repo_id}: no Hub token; set HF_TOKEN or run `hf auth login`") from None
    except (*_HUB_ERRORS, HFValidationError) as error:
        raise PublishError(f"{repo_id}: {_what_to_do(error)}") from error
    except RuntimeError as error:
        # a file's upload that fails comes wrapped, with what happened as its cause
        if not isinstance(error.__cause__, _HUB_ERRORS):
            raise
        raise PublishError(f"{repo_id}: {_what_to_do(error.__cause__)}") from error


def _remote_files(api: HfApi, repo_id: str, public: bool) -> set[str]:
    """What the repository holds already; makes it where there is none."""
    try:
        info = api.model_info(repo_id)
    except RepositoryNotFoundError:
        api.create_repo(repo_id, private=not public)
        info = api.model_info(repo_id)
    if not info.private and not public:
        raise PublishError(f"{repo_id}: is public; pass --public if everybody may see this, or name another repository")
    return {file.rfilename for file in info.siblings or []}


def _download(api: HfApi, repo_id: str, name: str) -> str:
    return Path(api.hf_hub_download(repo_id, name)).read_text(encoding="utf-8")


_ADVICE = {
    401: "the token is missing or wrong; set HF_TOKEN or run `hf auth login`",
    403: "the token may not write there; use one with write access",
    404: "no such namespace, or the token cannot see it",
    409: "somebody else is changing the repository; publish again",
}


def _what_to_do(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = (getattr(error, "server_message", None) or str(error)).strip().splitlines()
    said = f" ({said[0][:200]})" if said else ""
    if status:
        return f"the Hub answered {status}: {_ADVICE.get(status, 'nothing was published; publish again')}{said}"
    if isinstance(error, HFValidationError):
        return f"not a repository's name{said}"
    return f"the connection broke ({type(error).__name__}); nothing was published; publish again{said}"
