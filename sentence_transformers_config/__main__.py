"""Publishing from the command line.

python -m finmatryoshka.sentence_transformers_config check FOLDER
python -m finmatryoshka.sentence_transformers_config card FOLDER --results RESULTS_FOLDER --repo_id org/finmatryoshka
python -m finmatryoshka.sentence_transformers_config publish FOLDER --repo_id org/finmatryoshka [--public] [--dry-run]
"""

import argparse
import sys
from pathlib import Path

from .card import add_results
from .check import check_folder
from .publish import PublishError, list_files, publish


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m finmatryoshka.sentence_transformers_config",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "card", "publish"):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        if name != "check":
            command.add_argument("--repo_id", required=True)
        if name == "card":
            command.add_argument("--results", type=Path, required=True, help="what the evaluation wrote with --output")
        if name == "publish":
            command.add_argument("--public", action="store_true", help="visible to everybody; private by default")
            command.add_argument("--dry-run", action="store_true", help="list files, sizes and the card; send nothing")
    arguments = parser.parse_args(argv)
    if arguments.command == "check":
        problems = check_folder(arguments.folder)
        print("\n".join(problems) or f"{arguments.folder}: fit to publish")
        return 1 if problems else 0
    if arguments.command == "card":
        add_results(arguments.folder, arguments.results, arguments.repo_id)
        print(f"written: {arguments.folder / 'README.md'}")
        return 0
    if arguments.dry_run:
        for name, size in list_files(arguments.folder):
            print(f"{size:>12,}  {name}")
        print(
            (arguments.folder / "README.md").read_text()
            if (arguments.folder / "README.md").is_file()
            else "no card yet"
        )
        return 0
    try:
        print(publish(arguments.folder, arguments.repo_id, arguments.public))
    except PublishError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
