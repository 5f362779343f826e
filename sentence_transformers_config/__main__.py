"""A trained folder from the command line: checked, described, released, published, repaired.

python -m finmatryoshka.sentence_transformers_config check FOLDER
python -m finmatryoshka.sentence_transformers_config card FOLDER --results RESULTS_FOLDER --repo_id org/finmatryoshka
python -m finmatryoshka.sentence_transformers_config publish FOLDER --repo_id org/finmatryoshka [--public] [--dry-run]
python -m finmatryoshka.sentence_transformers_config round TRAINED --output ROUNDED
python -m finmatryoshka.sentence_transformers_config release ROUNDED --results RESULTS_FOLDER --output RELEASED
python -m finmatryoshka.sentence_transformers_config repair FOLDER --from ORIGINAL
"""

import argparse
import sys
from pathlib import Path

from ..data.files import WriteError
from .card import add_results
from .check import SUMS, check_folder, file_sums, list_files, sums_text
from .folder import FolderError
from .publish import publish
from .release import release, round_folder
from .repair import repair


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m finmatryoshka.sentence_transformers_config",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    parsers = {name: commands.add_parser(name) for name in ("check", "card", "publish", "round", "release", "repair")}
    for command in parsers.values():
        command.add_argument("folder", type=Path)
    for name in ("card", "publish"):
        parsers[name].add_argument("--repo_id", required=True)
    parsers["release"].add_argument("--repo_id", help="org/name on the card; org/ and the output's name by default")
    for name in ("card", "release"):
        parsers[name].add_argument(
            "--results", type=Path, required=True, help="what the evaluation wrote with --output"
        )
    for name in ("round", "release"):
        parsers[name].add_argument("--output", type=Path, required=True)
    parsers["publish"].add_argument("--public", action="store_true", help="visible to everybody; private by default")
    parsers["publish"].add_argument("--overwrite", action="store_true", help="replace files that publish did not write")
    parsers["publish"].add_argument(
        "--dry-run", action="store_true", help="check, list what would be sent; send nothing"
    )
    parsers["repair"].add_argument(
        "--from", dest="original", required=True, help="the folder or Hub id it was loaded from"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except (FolderError, WriteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    folder = arguments.folder
    if arguments.command == "check":
        problems = check_folder(folder)
        print("\n".join(problems) or f"{folder}: fit to publish")
        return 1 if problems else 0
    if arguments.command == "card":
        add_results(folder, arguments.results, arguments.repo_id)
        print(f"written: {folder / 'README.md'}")
    elif arguments.command == "round":
        round_folder(folder, arguments.output)
        print(f"written: {arguments.output}")
    elif arguments.command == "release":
        release(folder, arguments.results, arguments.output, arguments.repo_id or f"org/{arguments.output.name}")
        print(f"released: {arguments.output} ({sum(size for _, size in list_files(arguments.output)) / 1e6:.1f} MB)")
    elif arguments.command == "repair":
        fit = repair(folder, arguments.original)
        print(
            f"repaired: {folder}" + ("" if fit else "; its heads were fitted to other vectors: it predicts no numbers")
        )
    elif arguments.dry_run:
        return _dry_run(folder)
    else:
        print(publish(folder, arguments.repo_id, arguments.public, overwrite=arguments.overwrite))
    return 0


def _dry_run(folder: Path) -> int:
    """The check, then exactly what `publish` would send, and the card."""
    problems = check_folder(folder)
    sums = sums_text(file_sums(folder)).encode() if folder.is_dir() else b""
    for name, size in [*((n, s) for n, s in list_files(folder) if n != SUMS), (SUMS, len(sums))]:
        print(f"{size:>12,}  {name}")
    if (folder / "README.md").is_file():
        print((folder / "README.md").read_text(encoding="utf-8"))
    print("\n".join(problems) or f"{folder}: fit to publish")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
